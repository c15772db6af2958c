"""Tables and figures of networks that choose: what stands in a cell, where a point lies, what an empty one says."""

from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dynlib.book.legacy import plots_choices, tables, tables_choices
from dynlib.book.records import Record
from dynlib.errors import InputError

mpl.use("agg")


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()
    plt.close(figure)


# ------------------------------------------------------------------------------------------------------------ tables


def test_policies_show_mean_spread_and_seeds():
    rows = {"dynamic": {"top1": [0.8, 0.82], "macs": [5e6, 5e6], "behind": []}}
    rows |= {"random": {"top1": [0.75], "macs": [6e6], "behind": [0.05]}}
    table = tables_choices.policy_table(rows)
    assert table.iloc[0].tolist() == ["dynamic", "81.00 ± 1.41", "–", "5.0", "n = 2"]
    assert table.iloc[1].tolist() == ["random", "75.00", "+5.00", "6.0", "n = 1"]
    assert "standard deviation" in table.attrs["notes"][0]
    empty = tables_choices.policy_table({})
    assert set(empty.iloc[0]) == {"–"} and empty.attrs["notes"] == ()  # no ±, nothing to explain


def test_parts_show_a_dash_where_there_is_nothing():
    table = tables_choices.parts_table(
        {"alpha 0.5": {"training": [], "choice": [0.01, -0.02]}, "x": {"training": [], "choice": []}}
    )
    assert table.iloc[0].tolist() == ["alpha 0.5", "–", "−0.50 ± 2.12", "n = 2"]
    assert table.iloc[1].tolist() == ["x", "–", "–", "n = 0"]
    assert tables_choices.parts_table({}).iloc[0].tolist() == ["–"]


def test_networks_are_compared_size_by_size_from_the_largest():
    table = tables_choices.sizes_table(
        {"a": {"64 px": [0.5, 0.6], "128 px": [0.7, 0.7]}, "b": {"128 px": [0.8]}, "c": {}}
    )
    assert list(table) == ["network", "128 px, %", "64 px, %", "seeds"]
    assert table.iloc[0].tolist() == ["a", "70.00 ± 0.00", "55.00 ± 7.07", "n = 2"]
    assert table.iloc[1].tolist() == ["b", "80.00", "–", "n = 1"] and table.iloc[2].tolist() == ["c", "–", "–", "n = 0"]


def test_costs_stand_beside_what_is_counted_with_random_choice_and_break_even():
    costs = {"A": {"224": 4_000_000, "168": 2_000_000, "112": 1_000_000, "predictor": 300_000}}
    costs["B"] = {px: 2 * macs for px, macs in costs["A"].items()}
    table = tables_choices.resolution_table(costs, [*costs["A"].values()])
    assert table.iloc[0].tolist() == ["224", "4,000,000", "4,000,000", "100.0", "8.0"]
    assert table.iloc[-1].tolist() == ["predictor", "300,000", "300,000", "7.5", "0.6"]
    random, pays = table.attrs["notes"]
    assert "A 0.002 G, B 0.005 G" in random and "A 10.0 %, B 10.0 %" in pays


def test_held_out_scores_stand_with_their_rates_and_binomial_errors():
    def run(lr, candidates, factor, **metrics):
        config = {"method": {"candidates": candidates, "predictor_lr": factor}}
        config |= {"recipe": {"lr": lr, "held_out_images": 100}}
        return Record("drnet", "training", "public", config, "", {}, 0, metrics, [], {}, 1.0)

    two = run(0.05, [1.0, 0.5], 0.1, top1=0.5, shares=[0.2, 0.8], sides_px=[64, 32])
    table = tables_choices.held_out_table([two, run(0.1, [1.0], 1.0, top1=0.5)])
    assert table.iloc[0].tolist() == ["plain", "0.1", "–", "50.0 ± 5.0", "–", "–"]
    assert table.iloc[1].tolist() == ["dynamic", "0.05", "0.005", "50.0 ± 5.0", "20", "80"]
    assert list(table)[-2:] == ["sent to 64 px, %", "sent to 32 px, %"]


def test_parts_stand_beside_the_costs_of_the_networks_compared():
    macs = {"alpha 0.5": {"dynamic": [27.1e6, 27.1e6], "96 px": []}}
    row = tables_choices.parts_table({"alpha 0.5": {"together": [-0.006, -0.006]}}, macs).iloc[0]
    assert row.tolist() == ["alpha 0.5", "−0.60 ± 0.00", "27.1", "–", "n = 2"]


def test_penalties_show_both_sides_and_their_ratio():
    table = tables_choices.penalty_table(
        {"alpha 0.5, seed 0": {"target": 20e6, "reached": 21e6, "spent": 9e6, "state": "active", "held": True}}
    )
    assert table.iloc[0].tolist() == ["alpha 0.5, seed 0", "20.0", "21.0", "1.050", "yes", "active", "9.0"]
    idle = {"target": 20e6, "reached": 9e6, "spent": 9e6, "state": "idle", "held": None}
    assert tables_choices.penalty_table({"idle": idle}).iloc[0].tolist()[4:6] == ["–", "idle"]
    assert set(tables_choices.penalty_table({}).iloc[0]) == {"–"}


def test_networks_are_compared_with_the_static_one_of_their_seed():
    row = {"kind": "dynamic", "seeds": [0, 2], "top1": [0.7, 0.72], "macs": [20e6, 30e6]}
    row |= {"static_top1": [0.71, None], "static_macs": [40e6, None]}
    empty = {"kind": "", "seeds": [], "top1": [], "macs": [], "static_top1": [], "static_macs": []}
    table = tables_choices.acceleration_table({"stages": row, "MSDNet": empty})
    expected = ["stages", "dynamic", "–", "71.00 ± 1.41", "−1.00", "25.0 ± 7.1", "50.0", "0, 2"]
    assert table.iloc[0].tolist() == expected
    assert table.iloc[1].tolist() == ["MSDNet", *["–"] * 7]


def test_budgets_and_stages_and_waiting_times_have_a_line_each():
    row = {
        "budget": [10e6, 10e6],
        "thinned": [0.6, 0.62],
        "ours": [0.65, 0.65],
        "macs": [9e6, 9.2e6],
        "gain": [0.05, 0.03],
    }
    table = tables_choices.budget_table({"thinned to width 8": row})
    expected = ["10.0", "61.00 ± 1.41", "65.00 ± 0.00", "9.1 ± 0.1", "+4.00 ± 1.41", "n = 2"]
    assert table.iloc[0].tolist() == ["thinned to width 8", *expected]
    stages = {"exit 1": {"all": [0.5], "leavers": [0.8], "share": [0.4], "macs": [2e6]}}
    stages |= {"together": {"all": [0.6], "leavers": [], "share": [], "macs": [3.5e6]}}
    table = tables_choices.stage_table(stages)
    assert table.values.tolist() == [
        ["exit 1", "–", "50.00", "80.00", "40.0", "2.00"],
        ["together", "–", "60.00", "–", "–", "3.50"],
    ]
    assert set(tables_choices.stage_table({}).iloc[0]) == {"–"}
    table = tables_choices.waiting_table({"stages": [1.0, 1.0, 1.0, 5.0]})
    assert table.iloc[0].tolist() == ["stages", "2.00", "1.00", "4.40", "5.00"]


def test_retrained_candidates_show_both_rewards():
    alone = {"reward": 0.6123, "top1": 0.55, "macs": 3_210_000}
    one = {
        "by": "policy",
        "cuts": [[0, 1, 8], [0, 2, 8]],
        "reuse": [[1], [0]],
        "reward": 0.5,
        "top1": 0.4,
        "alone": alone,
    }
    table = tables_choices.retrained_table([one])
    assert table.iloc[0].tolist() == [
        "policy", "1 / 2", "1 / 0", "0.5000", "0.6123", "55.00", "3.21",
    ]  # fmt: skip
    assert set(tables_choices.retrained_table([]).iloc[0]) == {"–"}


def test_mixtures_stand_beside_our_shares():
    claimed = pd.DataFrame([("a", "2", "GMAC"), ("b", "300", "MMAC")], columns=["row", "value", "unit"])

    def allowed(row, macs):
        assert macs == pytest.approx({"a": 2e9, "b": 3e8}[row])
        return {"112": (0, 0.5), "224": (0.5, 1)} if row == "a" else {"168": (0.25, 0.254)}

    table = tables_choices.mixture_table(claimed, allowed, {"a": [[0.5, 0.5], [0.7, 0.3]], "b": []})
    assert table.columns.tolist() == ["row", "claimed", "224 px", "168 px", "112 px", "ours"]
    assert table.values.tolist() == [
        ["a", "2 G", "50–100", "–", "0–50", "60 / 40"],
        ["b", "300 M", "–", "25–25", "–", "–"],
    ]


def test_a_table_of_the_paper_has_claims_and_ours_in_neighbouring_columns():
    claimed = tables.claims("drnet", "table3")
    ours = {"counted": {"ResNet-50": {"params": 25_557_032, "macs": 4_089_184_256}, "elsewhere": {"params": 1}}}
    ours["public"] = {"ResNet-50": {"top1": [0.80, 0.82]}, "our own row": {"top1": [0.5]}}
    table = tables_choices.paper_table(claimed, ours, ["our own row"]).set_index("row")
    assert table.loc["ResNet-50", "parameters, M: claimed"] == table.loc["ResNet-50", "parameters, M: ours"] == "25.6"
    assert (
        table.loc["ResNet-50", "top-1, %: claimed"] == "76.1"
        and table.loc["ResNet-50", "top-1, %: ours"] == "81.0 ± 1.4"
    )
    assert table.loc["ResNet-101", "MACs, G: ours"] == "–" and "elsewhere" not in table.index
    assert table.loc["our own row", "top-1, %: ours"] == "50.0"
    assert not [column for column in table if "reduction" in column] and len(table) == claimed.row.nunique() + 1


# ----------------------------------------------------------------------------------------------------------- figures


def test_policies_are_drawn_in_percent_and_millions_each_with_a_mark_of_its_own(ax):
    plots_choices.policies(ax, {"dynamic": [(5e6, 0.8), (2e6, 0.7)], "fixed": [], "oracle": [(1e6, 0.9)]})
    first, second = ax.get_lines()
    np.testing.assert_allclose(first.get_xydata(), [[2, 70], [5, 80]])
    np.testing.assert_allclose(second.get_xydata(), [[1, 90]])
    assert first.get_marker() != second.get_marker() and first.get_zorder() > second.get_zorder()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["dynamic", "oracle"]
    with pytest.raises(InputError, match="8 families are in one figure; 7 marks can be told apart"):
        plots_choices.policies(ax, dict.fromkeys("abcdefgh", ()))


@pytest.mark.parametrize("families", [{}, {"dynamic": []}])
def test_a_figure_without_points_says_so(ax, families):
    plots_choices.policies(ax, families, x="time_ms", y="CamVid: mIoU")
    assert ax.get_ylabel() == "CamVid: mIoU (%)"
    assert [text.get_text() for text in ax.texts] == ["not measured yet"] and not ax.get_lines()
    assert ax.get_xlabel() == "mean time an image (ms)"


def test_stacked_bars_fill_the_row_and_carry_their_percentage(ax):
    plots_choices.stacked(ax, {"a": [0.5, 0.3, 0.17, 0.03], "b": [0, 1, 0, 0]}, ["128", "96", "64", "right at none"])
    assert [text.get_text() for text in ax.texts] == ["50", "30", "100", "17"]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert max(ends) == pytest.approx(100) and len(ax.patches) == 8


def test_no_bars_are_said_to_be_missing(ax):
    plots_choices.stacked(ax, {}, ["128", "64"])
    assert [text.get_text() for text in ax.texts] == ["not measured yet"]


def test_settings_stand_below_each_other_with_scores_left_and_costs_right(ax):
    right = ax.figure.add_subplot()
    row = {"top1": [0.6, 0.62], "permuted": [0.6, 0.61], "target": [0.5], "expected": [0.5], "spent": [0.4, 0.6]}
    plots_choices.settings(ax, right, {"alpha": row, "none": row | {"target": []}})
    assert [text.get_text() for text in ax.get_yticklabels()] == ["alpha", "none"]
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [[60, 0], [62, 0], [60, 1], [62, 1]])
    np.testing.assert_allclose(right.get_lines()[0].get_xydata(), [[50, 0]])
    plots_choices.settings(ax, right, {})
    assert [text.get_text() for text in right.texts] == ["not measured yet"]


CURVE = [{"phase": "a", "top1": 0.2, "top1_at_64_px": 0.2, "top1_at_32_px": 0.1}] * 2
CURVE = [*CURVE, {"phase": "b", "top1": 0.3, "share_at_64_px": 0.25, "share_at_32_px": 0.75}]


def test_accuracy_is_drawn_by_size_and_then_of_the_choice(ax):
    plots_choices.accuracy_by_size(ax, CURVE)
    large, small, chosen, border = ax.get_lines()
    np.testing.assert_allclose(large.get_xydata(), [[1, 20], [2, 20]])
    np.testing.assert_allclose(chosen.get_xydata(), [[3, 30]])
    assert (large.get_label(), small.get_label()) == ("all at 64 px", "all at 32 px")
    assert border.get_xdata()[0] == 2.5


def test_shares_stand_on_each_other_in_the_epochs_of_choosing(ax):
    plots_choices.shares_over_epochs(ax, CURVE)
    assert [(bar.get_y(), bar.get_height()) for bar in ax.patches] == [(0, 25), (25, 75)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["64 px", "32 px"]


def test_a_network_without_choices_has_an_accuracy_and_no_shares(ax):
    plots_choices.accuracy_by_size(ax, [{"top1": 0.2}, {"top1": 0.4}])
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [[1, 20], [2, 40]])
    plots_choices.shares_over_epochs(ax, [{"top1": 0.2}])
    assert not ax.patches


def test_a_kernel_s_coloured_area_is_its_cost(ax):
    plots_choices.kernel_blocks(ax, [0, 2, 4, 8], [[True, False, False], [True, True, False], [False, True, True]])
    coloured = [patch for patch in ax.patches if patch.get_facecolor()[3]]
    assert sum(patch.get_width() * patch.get_height() for patch in coloured) == 4 + 8 + 24
    assert [text.get_text() for text in ax.texts] == ["6.2 %", "18.8 %", "56.2 %"]
    assert coloured[-1].get_xy() == (4, 4)  # inputs to the right, outputs downwards


def test_a_search_is_drawn_by_its_draws_and_its_best_so_far(ax):
    plots_choices.search_curves(ax, {"controller": [0.2, 0.1, 0.4], "random": [0.3, 0.2]}, ("all alike", 0.35))
    draws, best, _, _, level = ax.get_lines()
    np.testing.assert_allclose(draws.get_ydata(), [0.2, 0.1, 0.4])
    np.testing.assert_allclose(best.get_ydata(), [0.2, 0.2, 0.4])
    assert level.get_ydata()[0] == 0.35 and ax.get_legend().get_texts()[2].get_text() == "all alike"


def test_a_network_is_drawn_box_by_box_with_an_arrow_a_reader(ax):
    plots_choices.drawn_network(ax, {"32": (0, 4, 16), "8": (0, 16, 64)}, [[(0, 1)], []])
    assert [(box.get_y(), box.get_height()) for box in ax.patches if box.get_width() == 0.44] == [
        (0, 0.25),
        (0.25, 0.75),
    ] * 2
    numbers = [text.get_text() for text in ax.texts if text.get_text().isdigit()]
    assert numbers == ["4", "12", "16", "48"] and len([t for t in ax.texts if t.get_text() == ""]) == 1


def test_points_are_named(ax):
    plots_choices.named_points(ax, {"ours": {"a": (2e6, 0.5), "b": (3e6, 0.6)}, "random": {"a": (4e6, 0.4)}})
    assert [text.get_text() for text in ax.texts] == ["a", "b", "a"]
    np.testing.assert_allclose([line.get_xydata()[0] for line in ax.get_lines()], [[2, 50], [3, 60], [4, 40]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "random"]


def test_waiting_times_rise_to_all_images_and_mark_median_and_tail(ax):
    plots_choices.waiting_times(ax, {"stages": [3.0, 1.0, 2.0]})
    steps, marks = ax.get_lines()
    np.testing.assert_allclose(steps.get_xdata(), [1, 2, 3])
    assert steps.get_ydata()[-1] == 100 and marks.get_xdata()[0] == 2


@pytest.mark.parametrize(
    "draw",
    [
        plots_choices.search_curves,
        plots_choices.named_points,
        lambda ax, none: plots_choices.drawn_network(ax, none, []),
    ],
)
def test_without_a_record_a_figure_says_so(ax, draw):
    draw(ax, {})
    assert [text.get_text() for text in ax.texts] == ["not measured yet"]


def test_a_mosaic_sets_pictures_side_by_side_and_leaves_white_where_there_are_fewer():
    pictures = np.stack([np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)])
    sheet = plots_choices.mosaic(pictures, columns=2, rows=2, zoom=2, gap_px=1)
    assert sheet.shape == (9, 13, 3)
    assert (sheet[:4, :6] == 10).all() and (sheet[:4, 7:] == 20).all() and (sheet[5:, :6] == 30).all()
    assert (sheet[5:, 7:] == 255).all() and (sheet[4] == 255).all() and (sheet[:, 6] == 255).all()
    assert plots_choices.mosaic(pictures[:0], 2, 2, 2, 1).shape == (9, 13, 3)


# ---------------------------------------------------------------------------------------------------------- positions


def sampled(metrics, seed=0):
    return Record("sampling", "training", "public", {}, "", {}, seed, metrics, [], {}, 0.0)


def test_sampled_networks_show_masks_and_seeds_and_dense_ones_neither():
    masked = {"miou": 0.2, "miou_mean": 0.21, "miou_spread": 0.004, "density": 0.3, "macs": 9e8, "macs_backbone": 3e8}
    masked |= {"empty_windows": 0.125, "density_by_mask": [0.95, 0.3, 0.02, 0.91]}
    rows = {"ours": [sampled(masked), sampled(masked | {"miou_mean": 0.23, "macs_backbone": 5e8}, 1)]}
    rows |= {"dense": [sampled({"miou": 0.25, "macs": 8e8, "macs_backbone": 7e8})], "none": []}
    levels = {"ours": [0.2, 0.21], "dense": [], "none": []}
    table = tables_choices.sampled_table(rows, "miou", levels, windows=True)
    ours = ["ours", "–", "22.00 ± 1.41", "20.50", "400.0", "n = 2", "30.0", "2, 1", "12.50"]
    assert table.iloc[0].tolist() == ours
    assert table.iloc[1].tolist() == ["dense", "–", "25.00", "–", "700.0", "n = 1", *"–––"]
    assert table.iloc[2].tolist() == ["none", *"––––", "n = 0", *"–––"] and "mIoU, %" in table
    short = tables_choices.sampled_table(rows, "miou", levels)
    assert short.iloc[0].tolist() == ours[:-1] and "0.40 points" in short.attrs["notes"][-1]


def test_orders_show_their_gaps_with_a_sign():
    first = SimpleNamespace(claim="a above b", gaps=(0.01, 0.03), verdict="confirmed", each="x: +1.0; y: +3.0*")
    table = tables_choices.order_table([first, SimpleNamespace(claim="b above c", gaps=(), verdict="none", each="")])
    assert table.iloc[0].tolist() == ["a above b", "confirmed", "+2.00 ± 1.41", "x: +1.0; y: +3.0*", "n = 2"]
    assert table.iloc[1].tolist() == ["b above c", "none", "–", "–", "n = 0"]
    assert "*" in table.attrs["notes"][-1]


def test_density_maps_share_one_scale_and_name_their_means():
    figure = plots_choices.density_maps({"a": np.full((4, 4), 0.25), "b": np.ones((2, 2)), "c": np.zeros((2, 2))}, 2)
    *maps, bar = figure.axes
    assert [ax.get_title() for ax in maps] == ["a: 25 %", "b: 100 %", "c: 0 %", ""]
    assert {image.get_clim() for ax in maps for image in ax.images} == {(0, 1)}
    assert bar.get_ylabel() == "probability of being computed"
