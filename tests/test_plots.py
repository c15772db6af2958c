"""Figures: labelled with units, claimed hollow, readable without colour vision, nothing left open."""

import copy
import math
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from dynlib.book.records import Record, config_hash
from dynlib.book.report import breakdown, figure as plots
from dynlib.errors import InputError


@pytest.fixture(autouse=True)
def styled():
    """The house style for one test, and a check that no figure stays open behind it."""
    with mpl.rc_context():
        plots.house_style()
        yield
    assert plt.get_fignums() == []


@pytest.fixture
def ax():
    return Figure(figsize=(5, 4)).subplots()


def record(alpha=0.5, seed=0, epochs=4) -> Record:
    config = {"method": {"alpha": alpha}}
    curve = [
        {"epoch": e + 1, "loss": 2.0 - e / 10, "top1": 0.5 + 0.1 * e - 0.1 * alpha + 0.01 * seed} for e in range(epochs)
    ]
    metrics = {"macs_ratio": 1 + alpha, "speedup": 1 + 0.8 * alpha, "speedup_iqr": [1 + 0.7 * alpha, 1 + 0.95 * alpha]}
    return Record("octconv", "training", "public", config, config_hash(config), {}, seed, metrics, curve, {}, 1.0)


def name(run: Record) -> str:
    return f"alpha {run.config['method']['alpha']:g}"


def points(series: str, shift: float = 0) -> pd.DataFrame:
    rows = [
        (f"{series}, alpha 0.5", series, "alpha 0.5", 2.4e9, 0.773 + shift),
        (series, series, "", 4.1e9, 0.77 + shift),
    ]
    return pd.DataFrame(rows, columns=["row", "series", "knob", "macs", "top1"])


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def drawn(ax) -> list:
    """The lines that hold data, without the samples in the legend."""
    return [line for line in ax.lines if len(line.get_xdata())]


def boxes(ax) -> list:
    """The rectangles that the labels cover on the figure."""
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    for text in ax.texts:
        text.update_positions(renderer)
    return [mpl.text.Text.get_window_extent(text, renderer) for text in ax.texts]  # without the line to the point


# --- accuracy against cost


def test_claimed_points_are_rings(ax):
    plots.tradeoff(ax, points("ResNet-50"))
    (claimed,) = drawn(ax)
    assert claimed.get_markerfacecolor() == "white" and claimed.get_marker() == "o"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["claimed"]


def test_macs_are_shown_in_g_or_m_and_accuracy_in_percent(ax):
    plots.tradeoff(ax, points("ResNet-50"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("multiply-accumulates an image (G)", "top-1 accuracy (%)")
    assert sorted(drawn(ax)[0].get_xdata()) == pytest.approx([2.4, 4.1])
    assert max(drawn(ax)[0].get_ydata()) == pytest.approx(77.3)
    small = Figure().subplots()
    plots.tradeoff(small, points("ResNet-20").assign(macs=[2.4e7, 4.1e7]))
    assert small.get_xlabel().endswith("(M)") and max(drawn(small)[0].get_xdata()) == pytest.approx(41)


def test_several_series_are_named_at_their_costliest_point_and_a_single_one_by_its_knobs(ax):
    plots.tradeoff(ax, pd.concat([points("ResNet-50"), points("ResNet-26", -0.04)]))
    assert sorted(texts(ax)) == ["ResNet-26", "ResNet-50"]
    assert [text.xy[0] for text in ax.texts] == pytest.approx([4.1, 4.1])
    alone = Figure().subplots()
    plots.tradeoff(alone, points("ResNet-50"))
    assert sorted(texts(alone)) == ["ResNet-50", "alpha 0.5"]


# --- curves, spectra, dots, latency


def test_a_learning_curve_is_the_mean_of_its_seeds_named_at_its_end(ax):
    plots.learning_curves(ax, [record(0.5, 0), record(0.5, 1), record(0.25, 0)], name)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "top-1 accuracy (%)")
    pale = [line for line in ax.lines if line.get_alpha()]
    mean, single = (line for line in ax.lines if not line.get_alpha())
    assert len(pale) == 2 and mean.get_ydata() == pytest.approx(np.mean([line.get_ydata() for line in pale], axis=0))
    assert single.get_ydata() == pytest.approx([47.5, 57.5, 67.5, 77.5])
    assert sorted(texts(ax)) == ["alpha 0.25", "alpha 0.5"]


def test_labels_of_curves_that_end_together_do_not_cover_each_other(ax):
    plots.learning_curves(ax, [record(alpha) for alpha in (0, 0.01, 0.02, 0.03, 0.5)], name)
    assert len(ax.texts) == 5
    assert not any(a.overlaps(b) for a, b in combinations(boxes(ax), 2))


def test_curves_of_different_lengths_are_not_averaged(ax):
    with pytest.raises(InputError, match="different lengths"):
        plots.learning_curves(ax, [record(seed=0), record(seed=1, epochs=5)], name)


def test_the_spectrum_of_a_wave_peaks_at_its_frequency():
    wave = np.sin(2 * np.pi * 0.25 * np.arange(64)) * np.ones((3, 64, 1))
    power = plots.radial_power(wave)
    assert (1 + power.argmax()) / (2 * len(power)) == pytest.approx(0.25, abs=1 / 64)


def test_the_spectrum_of_white_noise_is_flat_at_its_variance_whatever_its_offset():
    noise = np.random.default_rng(0).normal(5.0, 2.0, (64, 32, 32))
    assert plots.radial_power(noise) == pytest.approx(np.full(16, 4.0), rel=0.15)


def test_a_spectrum_has_both_units_and_a_name_for_each_line(ax):
    power = plots.radial_power(np.random.default_rng(0).normal(size=(2, 16, 16)))
    plots.spectra(ax, {"high": power, "low": (power / 100).tolist()})
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("frequency (cycles/pixel)", "power (squared signal)")
    assert sorted(texts(ax)) == ["high", "low"] and ax.get_yscale() == "log"


def test_speed_up_stands_over_the_ratio_of_macs_with_quartiles_and_the_ideal(ax):
    plots.latency_against_macs(ax, [record(0.25), record(1.0)], name)
    assert ax.get_xlabel().endswith("(×)") and ax.get_ylabel() == "measured speed-up (×)"
    assert [list(bar.get_segments()[0][:, 1]) for bar in ax.collections] == [
        pytest.approx([1.175, 1.2375]),
        pytest.approx([1.7, 1.95]),
    ]
    ideal = ax.lines[0]
    assert list(ideal.get_xdata()) == list(ideal.get_ydata())
    assert {"alpha 0.25", "alpha 1"} < set(texts(ax))
    assert ax.get_xlim() == ax.get_ylim()


def test_without_records_latency_is_an_empty_plane(ax):
    plots.latency_against_macs(ax, [], name)
    assert len(ax.collections) == 0
    assert ax.get_xlim()[0] < 1 < ax.get_xlim()[1]


# --- pictures


def test_every_pixel_of_a_picture_is_a_whole_square_of_the_figure():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (32, 16)]
    figure = plots.images(pictures, ["high", "low"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = np.asarray(canvas.buffer_rgba())[..., :3]
    side, left = 384, 0
    assert shown.shape[1] == 2 * side + 24
    for picture in pictures:
        times = side // len(picture)
        assert (shown[-side:, left : left + side] == picture.repeat(times, 0).repeat(times, 1)).all()
        left += side + 24
    assert [ax.get_title() for ax in figure.axes] == ["high", "low"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ax: plots.images([np.zeros((3, 8, 8))], ["a"]), "shape"),
        (lambda ax: plots.images([np.full((8, 8), 1.5)], ["a"]), "1.5"),
        (lambda ax: plots.radial_power(np.zeros((4, 4))), "4x4"),
        (lambda ax: plots.learning_curves(ax, [record()], name, "top5"), "top5"),
        (lambda ax: plots.spectra(ax, {str(i): np.ones(4) for i in range(9)}), "9 lines"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(ax, call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(ax)
    assert "\n" not in str(caught.value)


# --- style


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB of a colour after `seen`, a matrix on linear RGB."""
    rgb = np.array(to_rgb(colour))
    linear = np.clip(seen @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / (0.9505, 1, 1.089), 0.00886))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", [np.eye(3), DEUTERANOPIA], ids=["full", "deuteranopia"])
def test_any_two_colours_are_told_apart(seen):
    gaps = [np.linalg.norm(lab(a, seen) - lab(b, seen)) for a, b in combinations(plots.PALETTE, 2)]
    assert min(gaps) > 10  # 2.3 is a just noticeable difference


def test_the_house_style_sets_palette_and_ground():
    assert [to_hex(c).upper() for c in mpl.rcParams["axes.prop_cycle"].by_key()["color"]] == plots.PALETTE
    assert mpl.rcParams["figure.facecolor"] == "white"


def test_what_goes_into_a_figure_is_not_changed(ax):
    frame, runs, maps = points("ResNet-50"), [record()], np.random.default_rng(0).normal(size=(16, 16))
    before = frame.copy(), copy.deepcopy(runs), maps.copy()
    plots.tradeoff(ax, frame)
    for draw in (plots.learning_curves, plots.latency_against_macs):
        draw(Figure().subplots(), runs, name)
    plots.spectra(Figure().subplots(), {"a": plots.radial_power(maps)})
    pd.testing.assert_frame_equal(frame, before[0])
    assert runs == before[1]
    np.testing.assert_array_equal(maps, before[2])


def test_a_plane_has_a_mark_for_each_row_with_records_and_none_for_the_others(ax):
    rows = {"row": ["a", "b", "c"], "mean": [0.8, 0.9, float("nan")], "std": [0.01, float("nan"), float("nan")]}
    plots.plane(ax, pd.DataFrame(rows | {"cost": [1e7, 2e7, float("nan")]}), {"ours": ["a", "b"], "rival": ["c"]})
    (line,) = [line for line in ax.lines if line.get_linestyle() != "None" and len(line.get_xdata()) == 2]
    assert line.get_xdata() == pytest.approx([10, 20]) and line.get_ydata() == pytest.approx([80, 90])


def test_kept_accuracy_has_published_points_hollow_ours_with_intervals_and_a_clock_once_something_is_timed():
    told = pd.DataFrame([("a", "wae", 0.01, 0.5)], columns=["label", "key", "points", "macs"])
    ours = pd.DataFrame(
        [("b", "drnet", -0.02, -0.03, -0.01, 0.6, math.nan), ("c", "wae", 0.0, -math.inf, math.inf, 0.7, math.nan)],
        columns=["label", "key", "points", "low", "high", "macs", "ms"],
    )
    above, below = plots.kept(told, ours, 2.0).axes
    dots = [[line for line in ax.lines if line.get_marker() == "o"] for ax in (above, below)]
    assert [[(*d.get_xdata(), *d.get_ydata()) for d in of] for of in dots] == [[(50, 1)], [(60, -2), (70, 0)]]
    assert [[d.get_markerfacecolor() == "white" for d in of] for of in dots] == [[True], [False, False]]
    assert dots[0][0].get_color() == dots[1][1].get_color() != dots[1][0].get_color()
    assert [list(line.get_ydata()) for line in below.lines if line.get_linewidth() == 1.6] == [[-3, -1]]
    timed = plots.kept(told, ours.assign(ms=[1.5, math.nan]), 2.0).axes[2]
    assert {text.get_text() for text in timed.texts} == {"plain", "b"}
    assert timed.get_xlabel() == "milliseconds an image"


def test_a_breakdown_shares_the_clock_among_kinds_of_work_and_marks_what_the_macs_promise():
    spent = {"static": {"Conv": 6.0, "Relu": 2.0}, "method": {"Gemm": 2.0, "Gather": 1.0}}
    line = {"label": "a", "macs_ratio": 4.0, "operators_ms": spent, "static_ms": 10.0, "method_ms": 5.0}
    ax = Figure().subplots()
    breakdown.breakdown(ax, pd.DataFrame([line]))
    widths = [round(bar.get_width(), 6) for bar in ax.patches][:10]  # products, pooling, moving, elementwise, between
    assert widths == [60, 0, 0, 20, 20, 20, 0, 10, 0, 20]
    assert list(ax.lines[0].get_xdata()) == [25, 25]
