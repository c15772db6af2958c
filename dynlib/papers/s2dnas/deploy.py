"""Networks with stages as ONNX graphs, one a stage; which of them run is decided outside, see `dynlib.runtime`."""

from collections.abc import Iterable

import torch
from torch import Tensor, fx

from dynlib import export
from dynlib.errors import InputError
from dynlib.ops import evaluating
from dynlib.papers.s2dnas.convert import has_stages
from dynlib.papers.s2dnas.split import Piece, split
from dynlib.runtime import Deployed, Stages

COMPACT_FROM = 0.1  # share of a batch that must have left before the rest is copied together


@torch.no_grad()
def deploy(
    module: fx.GraphModule,
    example: Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[Tensor] | None = None,
) -> Deployed:
    """The stage-wise form of a network from `convert`: inference on a CPU in float32, see `dynlib.runtime.Stages`.

    `example` (N, 3, H, W) has the size of the images that it will take, any N. Images stop at the exits that the
    module's thresholds choose, and what lies behind is really not computed. With `calibrate`, a few batches of images,
    the stages are in int8, see `dynlib.quantise`. Raises InputError for a rival, which has no stages, and names what
    cannot be exported.
    """
    if not has_stages(module):
        raise InputError("this network has no stages; deploy takes those of form 'stages'")
    about, batches = export.described("s2dnas", module, example, engine, threads, calibrate)
    with evaluating(module):
        stages = split(module)
    kept: list[dict[Piece, Tensor]] = [{} for _ in range(1 + len(batches or ()))]  # of the example, then of each batch
    graphs, plan = {}, []
    for number, stage in enumerate(stages, 1):
        feeds = [
            [of.get(piece, images) for piece in stage.inputs]
            for of, images in zip(kept, (example, *(batches or ())), strict=True)
        ]
        how = {"engine": engine, "calibrate": batches and feeds[1:]}
        graphs[f"stage_{number}"] = export.graph(stage.network, *feeds[0], **how)
        for of, values in zip(kept, feeds, strict=True):
            of |= dict(zip(stage.outputs, stage.network(*values)[1:], strict=True))
        plan.append({"reads": [_name(piece) for piece in stage.inputs], "yields": [_name(p) for p in stage.outputs]})
    about |= {"stages": plan, "thresholds": module.exit_rule.thresholds.tolist(), "compact_from": COMPACT_FROM}
    return Stages(about, graphs, engine, threads)


def _name(piece: Piece) -> str:
    node, owner = piece
    return "image" if node.op == "placeholder" else f"{node.name}_{owner}"
