"""The book's figures: pure functions of frames, records and arrays that draw on an `ax` or return a figure.

Kept units come in (fractions, integer MACs); the axes show % and G or M. Published points are hollow, ours filled. The
colours are those of Okabe and Ito ("Color Universal Design", 2008), which colour-blind readers can tell apart.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dynlib.book.records import Record
from dynlib.errors import InputError
from dynlib.papers import METHODS

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # all of them but yellow
INK, PALE = "0.2", "0.55"
SMALL = 9  # points
AXES = {  # quantity as kept: axis label without unit, unit and factor to it
    "macs": ("multiply-accumulates an image", "G", 1e-9),
    "top1": ("top-1 accuracy", "%", 100),
    "top5": ("top-5 accuracy", "%", 100),
    "density": ("share of the positions computed", "%", 100),
    "loss": ("training loss", "nats", 1),
}


def house_style() -> None:
    """Set the style of all figures: ticks, no frame, our palette, dense pixels, white ground (dark pages dim it)."""
    quiet = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK}
    quiet |= {"text.color": INK, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False, "axes.titlesize": 11}
    size = {"figure.figsize": (7, 4), "figure.dpi": 192, "savefig.dpi": 192, "figure.facecolor": "white"}
    fonts = {"axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10, "legend.fontsize": SMALL}
    sns.set_theme("notebook", "ticks", PALETTE, rc=quiet | size | fonts | {"svg.hashsalt": "dynlib"})


def tradeoff(ax: Axes, claimed: pd.DataFrame, y: str = "top1") -> None:
    """Published accuracy against cost, one line of rings a series; `claimed` has series, knob, macs and `y`.

    Rings are wide enough to be seen around other marks. Of several series each is named at its costliest point; of a
    single one, every point is named by its knob.
    """
    colours = _colours(claimed.series)
    several = len(colours) > 1
    fx, fy = _axis(ax.xaxis, "macs", claimed.macs), _axis(ax.yaxis, y, claimed[y])
    look = {"marker": "o", "markersize": 8, "markerfacecolor": "white", "zorder": 2}
    ax.plot([], [], color=INK, label="claimed", linewidth=0, **look)
    ends: dict[str, tuple[float, float]] = {}
    for series, line in claimed.sort_values("macs", ascending=False).groupby("series", sort=False):
        xs, ys = line.macs * fx, line[y] * fy
        ax.plot(xs, ys, color=colours[series], linewidth=1.2, **look)
        for knob, *end in zip(line.knob, xs, ys, strict=True):
            ends.setdefault(series if several else knob or series, end)
    ax.legend(loc="lower right", handletextpad=0.2)
    _label(ax, ends, colours if several else dict.fromkeys(ends, INK), drop=0 if several else 5)


def learning_curves(ax: Axes, runs: Iterable[Record], label: Callable[[Record], str], y: str = "top1") -> None:
    """`y` (top1 or loss) over epochs: the mean over the seeds that share a label, each seed pale behind it."""
    groups: dict[str, list[np.ndarray]] = {}
    for run in runs:
        if any(y not in point for point in run.curve):
            raise InputError(f"quantity {y!r} is not in the curve of {label(run)!r}; it has {', '.join(run.curve[0])}")
        groups.setdefault(label(run), []).append(np.array([point[y] for point in run.curve]))
    colours, factor = _colours(groups), _axis(ax.yaxis, y, [])
    ends = {}
    for name, curves in groups.items():
        if len({len(curve) for curve in curves}) > 1:
            raise InputError(f"label {name!r} holds curves of different lengths; let `label` tell them apart")
        epochs, mean = np.arange(1, len(curves[0]) + 1), np.mean(curves, axis=0) * factor
        for curve in curves if len(curves) > 1 else []:
            ax.plot(epochs, curve * factor, color=colours[name], alpha=0.3, linewidth=0.8)
        ax.plot(epochs, mean, color=colours[name], marker="o" if len(epochs) == 1 else "", linewidth=1.6)
        ends[name] = (epochs[-1], mean[-1])
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    _label(ax, ends, colours)


def images(pictures: Sequence[ArrayLike], titles: Sequence[str]) -> Figure:
    """Pictures side by side at one height, without axes; every pixel is a whole square of the figure where that fits.

    Each is (H, W) grey or (H, W, 3), uint8 or floats in [0, 1].
    """
    arrays = [np.asarray(picture) for picture in pictures]
    for array in arrays:
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
            raise InputError(f"a picture has the shape {array.shape}; give (H, W) or (H, W, 3)")
        if array.dtype != np.uint8 and not (array.min() >= 0 and array.max() <= 1):
            raise InputError(f"a picture spans {array.min():.3g} to {array.max():.3g}; give uint8, or floats in [0, 1]")
    dpi, gap, top = int(mpl.rcParams["figure.dpi"]), 24, 48  # px
    common = math.lcm(*(array.shape[0] for array in arrays))
    tall = common * max(1, round(384 / common)) if common <= 768 else max(array.shape[0] for array in arrays)
    widths = [round(tall * array.shape[1] / array.shape[0]) for array in arrays]
    total = sum(widths) + gap * (len(widths) - 1)
    figure = Figure(figsize=(total / dpi, (tall + top) / dpi), dpi=dpi)
    left = 0
    for array, title, width in zip(arrays, titles, widths, strict=True):
        ax = figure.add_axes((left / total, 0, width / total, tall / (tall + top)))
        white = 255 if array.dtype == np.uint8 else 1
        ax.imshow(array, cmap="gray", vmin=0, vmax=white, interpolation="nearest", aspect="auto")
        ax.set_title(title, fontsize=SMALL + 1)
        ax.set_axis_off()
        left += width + gap
    return figure


def radial_power(maps: ArrayLike) -> np.ndarray:
    """Power averaged over rings of frequency and over all leading axes of (..., H, W).

    Ring k of n, from 1, lies at k / 2n cycles a pixel. The mean is taken off and a Hann window laid on, so that neither
    the offset nor the border leaks into the rings.
    """
    maps = np.asarray(maps, dtype=float)
    height, width = maps.shape[-2:]
    if min(height, width) < 8:
        raise InputError(f"maps are {height}x{width}; a spectrum needs at least 8x8")
    window = np.outer(np.hanning(height), np.hanning(width))
    flat = maps - maps.mean((-2, -1), keepdims=True)
    power = np.abs(np.fft.fft2(flat * window)) ** 2 / (window**2).sum()
    power = power.reshape(-1, height, width).mean(0)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    rings = min(height, width) // 2
    ring = np.rint(radius * 2 * rings).astype(int)
    total, count = (np.bincount(ring.ravel(), weights, rings + 1) for weights in (power.ravel(), None))
    return (total / np.maximum(count, 1))[1 : rings + 1]


def spectra(ax: Axes, powers: Mapping[str, ArrayLike]) -> None:
    """Power spectra as `radial_power` makes them, one line a name."""
    colours = _colours(powers)
    ends = {}
    for name, power in powers.items():
        frequency = np.arange(1, len(power) + 1) / (2 * len(power))
        ax.plot(frequency, power, color=colours[name], linewidth=1.6)
        ends[name] = (frequency[-1], power[-1])
    ax.set_yscale("log")
    ax.set_xlim(0, 0.5)
    ax.set_xlabel("frequency (cycles/pixel)")
    ax.set_ylabel("power (squared signal)")
    _label(ax, ends, colours)


def latency_against_macs(ax: Axes, runs: Iterable[Record], label: Callable[[Record], str]) -> None:
    """The speed-up that the clock saw over the one that the MACs promise, with quartiles; the diagonal is the ideal."""
    rows = [(label(run), run.metrics) for run in runs]
    reached = [1, *(v for _, m in rows for v in (m["macs_ratio"], *m["speedup_iqr"]))]
    low, top = 0.9 * min(reached), 1.12 * max(reached)
    ax.plot([low, top], [low, top], color=PALE, linewidth=1, linestyle="--", zorder=1)
    ax.axhline(1, color=PALE, linewidth=0.6, zorder=1)
    _write(ax, "all that the MACs promise", (top, top), (-10, -4), color=PALE, ha="right")
    for _, m in rows:
        reach = [[m["speedup"] - m["speedup_iqr"][0]], [m["speedup_iqr"][1] - m["speedup"]]]
        ax.errorbar(m["macs_ratio"], m["speedup"], yerr=reach, fmt="o", color=PALETTE[0], capsize=3, markersize=6)
    ax.set(xlim=(low, top), ylim=(low, top), aspect="equal")
    _label(ax, {name: (m["macs_ratio"], m["speedup"]) for name, m in rows}, dict.fromkeys(dict(rows), INK))
    ax.set_xlabel("ratio of MACs, static to method (×)")
    ax.set_ylabel("measured speed-up (×)")


def kept(told: pd.DataFrame, ours: pd.DataFrame, plain_ms: float) -> Figure:
    """Accuracy against the plain network over what is left of its cost: `report.published` above, `report.kept` below.

    Published points are hollow, ours have their intervals; one colour a paper, grey diamonds for controls. Where
    settings were timed, a third panel has these over milliseconds, beside the plain network's. Frames have `label`; one
    that is empty has no panel.
    """
    macs, time = (1.0, 100, "multiply-accumulates left (%)"), (plain_ms, 1, "milliseconds an image")
    panels = [("published, each on a network and data of its own", told, "macs", macs)]
    panels += [("ours: ResNet-20 on CIFAR-10, two epochs from trained weights", ours, "macs", macs)]
    panels += [("ours, over the clock: one picture, one CPU thread", ours.dropna(subset=["ms"]), "ms", time)]
    panels = [panel for panel in panels if len(panel[1])]
    heights = [1.3 + 0.26 * len(frame) for _, frame, _, _ in panels]  # inches: room for a label a point
    drawn = Figure(figsize=(7, sum(heights)), layout="constrained")
    colours = dict(zip(METHODS, PALETTE, strict=False))
    axes = drawn.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for ax, (title, frame, x, (plain, factor, words)) in zip(axes, panels, strict=True):
        ax.set_title(title, loc="left", fontsize=SMALL + 1)
        ax.axhline(0, color=PALE, linewidth=0.6, zorder=1)
        ax.plot(factor * plain, 0, "s", color=INK, markersize=6)
        ends = {"plain": (factor * plain, 0.0)}
        for line in frame.to_dict("records"):
            is_control = line.get("side") == "control"
            colour, mark = (PALE, "D") if is_control else (colours[line["key"]], "o")
            at, ground = factor * line[x], "white" if frame is told else None
            low, high = line.get("low", line["points"]), line.get("high", line["points"])
            if math.isfinite(low):
                ax.plot([at, at], [100 * low, 100 * high], color=colour, linewidth=1.6)
            ends[line["label"]] = (at, 100 * line["points"])
            ax.plot(*ends[line["label"]], mark, color=colour, markerfacecolor=ground or colour, markersize=7)
        ax.margins(y=0.2)
        ax.set(xlim=(0, 1.15 * factor * max([plain, *frame[x]])), xlabel=words, ylabel="points against plain")
        _label(ax, ends, dict.fromkeys(ends, INK))
    return drawn


def _axis(axis, quantity: str, values: Iterable[float]) -> float:
    """Label an axis with quantity and unit; return the factor from the kept unit."""
    if quantity not in AXES:
        raise InputError(f"quantity {quantity!r} has no axis; allowed: {', '.join(AXES)}")
    words, unit, factor = AXES[quantity]
    if unit == "G" and max(values, default=1e9) < 1e9:
        unit, factor = "M", 1e-6
    axis.set_label_text(f"{words} ({unit})")
    return factor


def _colours(names: Iterable[str]) -> dict[str, str]:
    names = list(dict.fromkeys(names))
    if len(names) > len(PALETTE):
        raise InputError(f"{len(names)} lines are in one figure; {len(PALETTE)} colours can be told apart")
    return dict(zip(names, PALETTE, strict=False))


def _label(ax: Axes, ends: Mapping[str, tuple], colours: Mapping[str, str], drop: float = 0) -> None:
    """Write each name to the right of its point, `drop` points lower; stack those that would cover each other.

    A name that would lie over another point stands on the left, if there is room.
    """
    line = 1.3 * SMALL
    ax.apply_aspect()
    ax.get_xlim(), ax.get_ylim()  # asking settles the limits, so that places on the figure are known
    at = {name: ax.transData.transform(end) * 72 / ax.figure.dpi for name, end in ends.items()}
    size = {name: 15 + 0.56 * SMALL * len(name) for name in at}  # about

    def is_over(name: str, side: int) -> bool:  # 1 for the right, -1 for the left
        away = [side * (at[other] - at[name]) for other in at if other != name]
        return any(SMALL < x < size[name] and abs(y) < 0.7 * line for x, y in away)

    room = {name: at[name][0] - ax.bbox.x0 * 72 / ax.figure.dpi for name in at}  # to the left, within the axes
    on_left = {name for name in at if is_over(name, 1) and not is_over(name, -1) and size[name] < room[name]}
    middle = lambda stack: np.mean([at[name][1] for name in stack])  # noqa: E731
    for side, ha, names in ((-1, "right", on_left), (1, "left", at.keys() - on_left)):
        spans = {name: sorted((at[name][0], at[name][0] + side * size[name])) for name in names}
        meet = lambda a, b: spans[a][0] < spans[b][1] and spans[b][0] < spans[a][1]  # noqa: B023, E731
        stacks: list[list[str]] = []
        for name in sorted(names, key=lambda name: at[name][1]):
            stacks.append([name])
            while len(stacks) > 1 and any(meet(a, b) for a in stacks[-1] for b in stacks[-2]):
                if middle(stacks[-1]) - middle(stacks[-2]) >= line * (len(stacks[-1]) + len(stacks[-2])) / 2:
                    break
                stacks[-2:] = [stacks[-2] + stacks[-1]]
        for stack in stacks:
            for place, name in enumerate(stack):
                lift = middle(stack) + line * (place - (len(stack) - 1) / 2) - at[name][1]
                _write(ax, name, ends[name], (10 * side, lift - drop), color=colours[name], ha=ha)


def _write(ax: Axes, text: str, at: tuple, offset: tuple, *, color: str, ha: str) -> None:
    """Text beside a point, `offset` points away, over the lines behind and under the marks of the data."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    style = {"ha": ha, "va": "center", "size": SMALL, "color": color, "zorder": 1.5, "annotation_clip": False}
    if abs(offset[1]) > 0.7 * SMALL:  # no longer beside its point: a line leads there
        style["arrowprops"] = {
            "arrowstyle": "-",
            "color": PALE,
            "shrinkA": 0,
            "shrinkB": 0,
            "relpos": (float(ha == "right"), 0.5),
        }
    ax.annotate(text, at, offset, textcoords="offset points", bbox=ground, **style)


def plane(ax: Axes, frame: pd.DataFrame, families: Mapping[str, Sequence[str]]) -> None:
    """Accuracy over the cost of the mean image, one line a family of rows of `report.summary`, ± one deviation.

    `frame` has row, mean, std, cost; rows without records leave no mark. Families of one row are single points.
    """
    colours = _colours(families)
    fx, fy = _axis(ax.xaxis, "macs", frame.cost.dropna()), _axis(ax.yaxis, "top1", frame["mean"].dropna())
    ends = {}
    for name, members in families.items():
        line = frame[frame.row.isin(members)].dropna(subset=["mean"]).sort_values("cost")
        if line.empty:
            continue
        look = {"marker": "o", "color": colours[name], "capsize": 3, "linewidth": 1.4}
        ax.errorbar(line.cost * fx, line["mean"] * fy, yerr=line["std"].fillna(0) * fy, **look)
        ends[name] = (line.cost.iloc[-1] * fx, line["mean"].iloc[-1] * fy)
    _label(ax, ends, colours)
