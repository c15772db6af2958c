"""Networks with stages as ONNX graphs, one a stage; which of them run is decided outside, see `dynlib.runtime`."""

from collections.abc import Iterable

import torch
from torch import Tensor, fx

from dynlib import export
from dynlib.ops import evaluating
from dynlib.papers.s2dnas.split import Piece, split
from dynlib.runtime import Stages

COMPACT_FROM = 0.1  # share of a batch that must have left before the rest is copied together


@torch.no_grad()
def deployed(
    model: fx.GraphModule,
    example: Tensor,
    engine: str,
    threads: int | None,
    calibrate: Iterable[Tensor] | None,
) -> Stages:
    """The deployed form of a network with stages; its thresholds become part of it."""
    export.check(model, example)
    returns = export.returned(export.answer(model, example))
    with evaluating(model):
        stages = split(model)
    batches = export.calibration(calibrate, example)
    kept: list[dict[Piece, Tensor]] = [{} for _ in range(1 + len(batches or ()))]  # of the example, then of each batch
    graphs, plan = {}, []
    for number, stage in enumerate(stages, 1):
        feeds = [
            [of.get(piece, images) for piece in stage.inputs]
            for of, images in zip(kept, (example, *(batches or ())), strict=True)
        ]
        graphs[f"stage_{number}"] = export.graph(stage.network, *feeds[0], calibrate=batches and feeds[1:])
        for of, values in zip(kept, feeds, strict=True):
            of |= dict(zip(stage.outputs, stage.network(*values)[1:], strict=True))
        plan.append({"reads": [_name(piece) for piece in stage.inputs], "yields": [_name(p) for p in stage.outputs]})
    told = {"stages": plan, "thresholds": model.exit_rule.thresholds.tolist(), "compact_from": COMPACT_FROM}
    return Stages(export.about("s2dnas", example, returns, batches, **told), graphs, engine, threads)


def _name(piece: Piece) -> str:
    node, owner = piece
    return "image" if node.op == "placeholder" else f"{node.name}_{owner}"
