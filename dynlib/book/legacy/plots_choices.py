"""Figures of networks that choose for each image: pure functions of curves, shares and points, as in `plots`."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from dynlib.book.legacy.plots import INK, PALE, PALETTE, SMALL
from dynlib.errors import InputError

SHADES = ["#08306B", "#2F7EBC", "#94C4DF", "#DDE8F3", "#F2F2F2"]  # from the largest size to the smallest
PLANES = {  # what may lie on the horizontal axis: label, factor
    "macs": ("mean multiply-accumulates an image (M)", 1e-6),
    "time_ms": ("mean time an image (ms)", 1),
}
LOOKS = ("o-", "v", "s-", "P--", "*", "D", "X")  # a mark besides the colour, for those who cannot tell colours


def policies(
    ax: Axes, families: Mapping[str, Sequence[tuple[float, ...]]], x: str = "macs", y: str = "top-1 accuracy"
) -> None:
    """A score over cost, a mark for each (cost, score), in MACs or ms; curves are joined, the rest stand alone.

    A third number is a deviation of the score, drawn as a bar.
    """
    if len(families) > len(LOOKS):
        raise InputError(f"{len(families)} families are in one figure; {len(LOOKS)} marks can be told apart")
    label, factor = PLANES[x]
    for (name, found), look, colour in zip(families.items(), LOOKS, PALETTE, strict=False):
        if found:
            costs, scores, *spread = np.array(sorted(found)).T
            size = {"markersize": 11 if look in "*v" else 7, "linewidth": 1.4, "markeredgecolor": "white"}
            line = ax.plot(costs * factor, 100 * scores, look, color=colour, label=name, **size)
            line[0].set_zorder(10 - LOOKS.index(look))  # the first family on top
            for deviation in spread:
                ax.errorbar(costs * factor, 100 * scores, 100 * deviation, fmt="none", ecolor=colour, elinewidth=1)
    ax.set_xlabel(label)
    ax.set_ylabel(f"{y} (%)")
    ax.grid(linewidth=0.4, alpha=0.6)
    if any(families.values()):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4 if len(families) == 4 else 3)
    else:
        _empty(ax)


def stacked(ax: Axes, rows: Mapping[str, Sequence[float]], segments: Sequence[str]) -> None:
    """One bar a row, cut into shares with the sum 1, each with its percentage; `segments` name them in the legend."""
    if not rows:
        return _empty(ax)
    left = np.zeros(len(rows))
    shades = [*SHADES[: len(segments) - 1], SHADES[-1]] if segments[-1].startswith("right at none") else SHADES
    for index, name in enumerate(segments):
        shares = np.array([100 * of[index] for of in rows.values()])
        ax.barh(range(len(rows)), shares, left=left, color=shades[index], edgecolor="white", height=0.72, label=name)
        for place, (start, share) in enumerate(zip(left, shares, strict=True)):
            if share >= 4:
                ink = "white" if index < 2 else INK
                ax.text(start + share / 2, place, f"{share:.0f}", ha="center", va="center", color=ink, size=SMALL)
        left += shares
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 100), xlabel="share of the held-out images (%)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(segments))


def settings(left: Axes, right: Axes, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """One line a setting, a mark a run: `top1` and `permuted`; and costs: `target`, `expected`, `spent`, fractions."""
    marks = {
        "top1": (left, "dynamic choice", {"marker": "o", "color": PALETTE[0]}),
        "permuted": (left, "its choices permuted", {"marker": "v", "color": PALETTE[1], "markerfacecolor": "none"}),
        "target": (right, "target", {"marker": "|", "markersize": 18, "color": INK}),
        "expected": (right, "expected by the gate", {"marker": "o", "color": PALETTE[0], "markerfacecolor": "white"}),
        "spent": (right, "at inference", {"marker": "D", "markersize": 5, "color": PALETTE[0]}),
    }
    for key, (ax, label, look) in marks.items():
        points = [(100 * value, place) for place, of in enumerate(rows.values()) for value in of[key]]
        ax.plot(*np.reshape(points, (-1, 2)).T, linestyle="none", label=label, **look)
    for ax, label in ((left, "top-1 accuracy (%)"), (right, "mean cost, share of full resolution (%)")):
        ax.set(xlabel=label, ylim=(max(len(rows), 1) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=[])
        ax.grid(linewidth=0.4, alpha=0.6)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1)
    left.set_yticklabels(rows)
    if not rows:
        _empty(left), _empty(right)


def accuracy_by_size(ax: Axes, curve: Sequence[Mapping]) -> None:
    """Held-out top-1 over the epochs of all phases: at every size while it is watched, then of the choice."""
    names = dict.fromkeys(key for point in curve for key in point if key.startswith("top1_at_"))
    for key, colour in zip(names, PALETTE[1:], strict=False):
        seen = [(epoch, 100 * point[key]) for epoch, point in enumerate(curve, 1) if key in point]
        ax.plot(*zip(*seen, strict=True), "s-", color=colour, markersize=4, label=f"all at {_side(key)}")
    chosen = [(epoch, 100 * point["top1"]) for epoch, point in enumerate(curve, 1) if names.keys().isdisjoint(point)]
    if chosen:
        ax.plot(*zip(*chosen, strict=True), "o-", color=PALETTE[0], markersize=5, label="each at its choice")
    _phases(ax, curve)
    ax.set_ylabel("held-out top-1 (%)")
    ax.legend(loc="best")


def shares_over_epochs(ax: Axes, curve: Sequence[Mapping]) -> None:
    """Share of the held-out images that are sent to every size, stacked, over the epochs in which a choice is made."""
    names = dict.fromkeys(key for point in curve for key in point if key.startswith("share_at_"))
    chosen = [
        (epoch, [100 * point[key] for key in names])
        for epoch, point in enumerate(curve, 1)
        if names and names.keys() <= point.keys()
    ]
    if chosen:
        epochs, shares = zip(*chosen, strict=True)
        bottom = np.zeros(len(epochs))
        for key, shade, of in zip(names, SHADES, np.transpose(shares), strict=False):
            ax.bar(epochs, of, 0.86, bottom=bottom, color=shade, edgecolor="white", label=_side(key))
            bottom += of
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))
    _phases(ax, curve)
    ax.set(ylim=(0, 100), ylabel="share of the held-out images (%)")


def kernel_blocks(ax: Axes, cuts: Sequence[int], read: Sequence[Sequence[bool]]) -> None:
    """A kernel of output by input channels: row j is stage j's, coloured where it reads; the area is the cost.

    `cuts` in channel groups, `read[j][i]` whether stage j reads stage i. Beside each row: the cumulative share in %.
    """
    groups, spent = cuts[-1], 0
    for j, (top, bottom) in enumerate(pairwise(cuts)):
        for i, (left, right) in enumerate(pairwise(cuts)):
            colour = PALETTE[j] if read[j][i] else "none"
            ax.add_patch(
                Rectangle((left, top), right - left, bottom - top, facecolor=colour, edgecolor=PALE, linewidth=0.8)
            )
            spent += (bottom - top) * (right - left) * bool(read[j][i])
        share = f"{100 * spent / groups**2:.1f} %"
        ax.text(groups + 0.2, (top + bottom) / 2, share, va="center", size=SMALL, color=INK)
    ax.set(xlim=(0, groups), ylim=(groups, 0), aspect="equal", xticks=cuts, yticks=cuts)
    ax.set(xlabel="input channels (groups)", ylabel="output channels (groups)")


def search_curves(ax: Axes, rewards: Mapping[str, Sequence[float]], level: tuple[str, float] | None = None) -> None:
    """Rewards of searches draw by draw, pale, the best so far as a line; `level`, a name and a reward, is dashed."""
    if not rewards:
        return _empty(ax)
    for (name, found), colour, mark in zip(rewards.items(), PALETTE, ("o", "v", "s"), strict=False):
        draws = np.arange(1, len(found) + 1)
        ax.plot(draws, found, mark, color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
        ax.step(draws, np.maximum.accumulate(found), where="post", color=colour, linewidth=1.6, label=name)
    if level is not None:
        ax.axhline(level[1], color=PALE, linestyle="--", linewidth=1, label=level[0])
    ax.set(xlabel="candidates drawn", ylabel="reward")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def drawn_network(ax: Axes, edges: Mapping[str, Sequence[int]], reuse: Sequence[Sequence[tuple[int, int]]]) -> None:
    """A column a map size, a box a stage, as high as its share of the channels and with their number.

    `edges` are channels where a stage begins and ends, by map size; `reuse` for each size the pairs (i, j) for which
    stage j reads stage i, as arrows.
    """
    if not edges:
        return _empty(ax)
    for place, (edge, arrows) in enumerate(zip(edges.values(), reuse, strict=True)):
        shares = [at / edge[-1] for at in edge]
        for stage, (low, high) in enumerate(pairwise(shares)):
            box = {"facecolor": PALETTE[stage], "edgecolor": "white", "alpha": 0.85}
            ax.add_patch(Rectangle((place - 0.22, low), 0.44, high - low, **box))
            count = f"{edge[stage + 1] - edge[stage]}"
            ax.text(place - 0.17, (low + high) / 2, count, va="center", color="white", weight="bold", size=SMALL)
            if not place:
                ax.text(-0.27, (low + high) / 2, f"stage {stage + 1}", va="center", ha="right", size=SMALL)
        middle = [(a + b) / 2 for a, b in pairwise(shares)]
        for i, j in arrows:
            bend = {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={0.4 / (j - i)}", "color": INK}
            ax.annotate("", (place + 0.22, middle[j]), (place + 0.22, middle[i]), arrowprops=bend)
    ax.set_xticks(range(len(edges)), [f"{size}, {edge[-1]} channels" for size, edge in edges.items()])
    ax.set(xlim=(-0.65, len(edges) - 0.4), ylim=(0, 1), yticks=[])
    ax.set(xlabel="map size (px), with channels in all", ylabel="channels, as shares")
    ax.spines["left"].set_visible(False)


def waiting_times(ax: Axes, times: Mapping[str, Sequence[float]]) -> None:
    """What share of the images is answered within so many milliseconds; dots at the median and at 95 %."""
    for (name, found), colour, line in zip(times.items(), PALETTE, ("-", "--", ":"), strict=False):
        ordered, shares = np.sort(found), 100 * np.arange(1, len(found) + 1) / len(found)
        ax.step(ordered, shares, where="post", color=colour, linestyle=line, label=name)
        ax.plot(np.percentile(ordered, [50, 95]), [50, 95], "o", color=colour, markersize=5)
    ax.set(xlabel="time of one image, batch 1 (ms)", ylabel="images answered (%)", ylim=(0, 101))
    ax.set_xlim(left=0)
    ax.legend(loc="lower right")


def named_points(ax: Axes, families: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Top-1 over mean MACs, a mark a family; each point (MACs, top-1) has its name beside it."""
    label, factor = PLANES["macs"]
    beside = ((8, 6, "left"), (8, -13, "left"), (-8, 6, "right"))
    for (family, points), mark, colour, (*off, side) in zip(families.items(), "ovs", PALETTE, beside, strict=False):
        for place, (name, (macs, top1)) in enumerate(points.items()):
            at = (macs * factor, 100 * top1)
            ax.plot(*at, mark, color=colour, markersize=8, label="" if place else family)
            ax.annotate(name, at, off, textcoords="offset points", ha=side, size=SMALL, color=colour)
    if not any(families.values()):
        return _empty(ax)
    ax.set(xlabel=label, ylabel="top-1 accuracy (%)")
    ax.margins(0.25, 0.15)  # room for the names
    ax.legend(loc="lower right")


def _empty(ax: Axes) -> None:
    """Say so where there is nothing to draw."""
    ax.text(0.5, 0.5, "not measured yet", ha="center", va="center", transform=ax.transAxes, color=PALE)
    ax.set(xticks=[], yticks=[])


def mosaic(pictures: ArrayLike, columns: int, rows: int, zoom: int = 2, gap_px: int = 4) -> np.ndarray:
    """The first rows x columns of pictures (N, H, W, 3) uint8 as one, white between them and where there are fewer."""
    pictures = np.asarray(pictures)[: rows * columns].repeat(zoom, 1).repeat(zoom, 2)
    height, width = pictures.shape[1:3]
    sheet = np.full((rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (at * (side + gap_px) for at, side in zip(divmod(place, columns), (height, width), strict=True))
        sheet[top : top + height, left : left + width] = picture
    return sheet


def density_maps(maps: Mapping[str, ArrayLike], columns: int) -> Figure:
    """Probabilities of being computed, a map (h, w) a name, in rows of `columns` under one bar of colours."""
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(2 * columns + 1, 2.25 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, probability) in zip(axes.flat, maps.items(), strict=False):
        shown = ax.imshow(probability, vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
        ax.set_title(f"{name}: {100 * np.asarray(probability).mean():.0f} %", fontsize=SMALL)
    bar = figure.colorbar(shown, ax=axes, fraction=0.03)
    bar.set_label("probability of being computed")
    return figure


def _side(key: str) -> str:
    """The size that a watched figure such as share_at_64_px is of: 64 px."""
    return key.partition("_at_")[2].replace("_", " ")


def _phases(ax: Axes, curve: Sequence[Mapping]) -> None:
    """Whole epochs on the horizontal axis, a dotted line where a phase ends."""
    for epoch in range(1, len(curve)):
        if curve[epoch].get("phase") != curve[epoch - 1].get("phase"):
            ax.axvline(epoch + 0.5, color=PALE, linestyle=":")
    ax.set(xlim=(0.5, len(curve) + 0.5), xlabel="epoch, both phases")
    ax.xaxis.get_major_locator().set_params(integer=True)
