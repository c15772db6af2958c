"""A network as careful people run it on a CPU: the forms that a method has to beat."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dynlib import export
from dynlib.engines import ENGINES

Net = Callable[[Tensor], Any]  # an input batch in, whatever it computes out
FLOAT32, INT8 = "float32", "int8"
COARSE = 0.5  # of the largest value, that int8 may differ by; a network that answers zeros differs by 1


@torch.no_grad()
def variants_of(
    module: nn.Module, example: Tensor, threads: int = 1, dtype: str = FLOAT32
) -> tuple[dict[str, Net], dict[str, str]]:
    """The network as a careful user would run it, and in a word why a variant is left out.

    `eager`, `channels_last`, `compiled` with its weights frozen, and each of `engines.ENGINES` that is installed. Each
    has its own copy of the weights, in eval mode, and takes `example`'s plain layout: changing the layout is inside the
    measured time. Compiling happens here, for the shape of `example` and the present number of threads. Variants must
    yield what `eager` does, within `export.CLOSE`. With `dtype` int8 there are the engines in int8 on top, calibrated
    with the example, within `COARSE`: of random weights no more can be asked. Call all without gradients: freezing is
    for inference.
    """
    eager = copy.deepcopy(module).eval()
    makers = {"channels_last": _channels_last, "compiled": _compiled}
    static = partial(export.single, "static", threads=threads)
    makers |= {name: partial(static, engine=name) for name in ENGINES}
    if dtype == INT8:
        makers |= {f"{name}_int8": partial(static, engine=name, calibrate=[example]) for name in ENGINES}
    variants, left_out, expected = {"eager": eager}, {}, eager(example)
    for name, make in makers.items():
        try:
            run = make(copy.deepcopy(module).eval(), example)
            share = export.difference(run(example), expected)
        except Exception as error:  # other people's compilers fail in their own ways, and the others can still be timed
            left_out[name] = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
            continue
        if share <= (COARSE if name.endswith("_int8") else export.CLOSE):
            variants[name] = run
        else:
            left_out[name] = f"its outputs differ by {share:.0e} of the largest value"
    return variants, left_out


def _channels_last(net: nn.Module, example: Tensor) -> Net:
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}[example.ndim]
    net = net.to(memory_format=layout)
    return lambda x: net(x.to(memory_format=layout))


def _compiled(net: nn.Module, example: Tensor) -> Net:
    from torch._inductor import config as inductor_config  # seconds to import, and the parent process never compiles

    compiled = torch.compile(net, dynamic=False)
    # Not torch.compile(options=...): tracing has to know too, or nothing is frozen, without a word (torch 2.15).
    with inductor_config.patch(freezing=True):
        compiled(example)
    return compiled
