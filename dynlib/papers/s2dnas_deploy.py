"""Networks with stages as ONNX graphs, one a stage; which of them run is decided outside, see `dynlib.runtime`."""

import torch
from torch import Tensor, fx

from dynlib import export
from dynlib.ops import evaluating
from dynlib.papers.s2dnas_split import Piece, split
from dynlib.runtime import Stages

COMPACT_FROM = 0.1  # share of a batch that must have left before the rest is copied together


@torch.no_grad()
def deployed(model: fx.GraphModule, example: Tensor, engine: str, threads: int | None) -> Stages:
    """The deployed form of a network with stages; its thresholds become part of it."""
    export.check(model, example)
    returns = export.returned(export.answer(model, example))
    with evaluating(model):
        stages = split(model)
    kept: dict[Piece, Tensor] = {}
    graphs, plan = {}, []
    for number, stage in enumerate(stages, 1):
        values = [kept.get(piece, example) for piece in stage.inputs]
        graphs[f"stage_{number}"] = export.graph(stage.network, *values)
        kept |= dict(zip(stage.outputs, stage.network(*values)[1:], strict=True))
        plan.append({"reads": [_name(piece) for piece in stage.inputs], "yields": [_name(p) for p in stage.outputs]})
    told = {"stages": plan, "thresholds": model.exit_rule.thresholds.tolist(), "compact_from": COMPACT_FROM}
    return Stages(export.about("s2dnas", example, returns, **told), graphs, engine, threads)


def _name(piece: Piece) -> str:
    node, owner = piece
    return "image" if node.op == "placeholder" else f"{node.name}_{owner}"
