"""Where the time of a plain network and of a method goes, by kind of work, beside what the MACs promise."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from dynlib.book.report.figure import INK, PALETTE

WORK = {  # what operators of ONNX do; all others are arithmetic on single elements
    "products": "Conv FusedConv ConvTranspose MatMul FusedMatMul Gemm FusedGemm QLinearConv QLinearMatMul QGemm",
    "pooling, resizing": "AveragePool MaxPool GlobalAveragePool ReduceMean Resize Upsample QLinearAveragePool",
    "moving": "Concat Slice Split Pad Reshape Transpose Expand Gather GatherND ScatterND NonZero Where ReorderInput "
    "ReorderOutput QLinearConcat QuantizeLinear DequantizeLinear",
}
KNOWN = {operator: kind for kind, operators in WORK.items() for operator in operators.split()}
OTHER = "elementwise"


def by_kind(operators_ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of each kind of work, from those of each ONNX operator."""
    spent = dict.fromkeys([*WORK, OTHER], 0.0)
    for operator, time_ms in operators_ms.items():
        spent[KNOWN.get(operator, OTHER)] += time_ms
    return spent


def breakdown(ax: Axes, frame: pd.DataFrame) -> None:
    """Where the time goes: two bars a line, the plain network's and the method's, in ONNX Runtime, by kind of work.

    Frames have `label`, `macs_ratio`, `operators_ms` (of both sides, as in a record), `static_ms`, `method_ms`.
    All is a share of the plain network's time; a tick marks what the MACs promise.
    """
    kinds = [*WORK, OTHER, "outside of operators"]
    for place, line in enumerate(frame.itertuples()):
        for side, height in (("static", place - 0.19), ("method", place + 0.19)):
            spent, clock = line.operators_ms[side], getattr(line, f"{side}_ms")
            shares = by_kind(spent) | {kinds[-1]: max(0.0, clock - sum(spent.values()))}
            left = 0.0
            for kind, colour in zip(kinds, PALETTE, strict=False):
                width = 100 * shares[kind] * clock / max(clock, sum(spent.values())) / line.static_ms
                ax.barh(height, width, 0.34, left, color=colour, alpha=0.45 if side == "static" else 1)
                left += width
        ax.plot([100 / line.macs_ratio] * 2, [place + 0.02, place + 0.36], color=INK, linewidth=2)
    for kind, colour in zip(kinds, PALETTE, strict=False):
        ax.barh(0, 0, color=colour, label=kind)
    ax.set_yticks(range(len(frame)), frame.label)
    ax.invert_yaxis()
    ax.set_xlabel("share of the plain network's time (%)")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
