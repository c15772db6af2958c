"""What records of dynamic resolution are made to say: policies at their cost, parts that add up, words that follow."""

import pytest

from dynlib.papers import drnet_answer as answer
from dynlib.records import Record

MACS, PREDICTOR = [100.0, 60.0, 20.0], 4.0


def record(seed=0, kind="training", config=None, **metrics):
    return Record("drnet", kind, "public", config or {}, "", {"test_images": 10_000}, seed, metrics, [], {}, 1.0)


def dynamic(seed=0, top1=0.83, shares=(0.25, 0.25, 0.5), full=0.84, blind=0.81, **more):
    macs = sum(s * c for s, c in zip(shares, MACS, strict=True))
    metrics = {"top1": top1, "shares": list(shares), "sides_px": [128, 96, 64], "macs_by_side": MACS}
    metrics |= {"macs_predictor": PREDICTOR, "macs_expected": macs + PREDICTOR, "fixed_top1": [full, 0.82, 0.70]}
    metrics |= {
        "permuted_top1": blind,
        "permuted_std": 0.01,
        "uniform_top1": [0.7, 0.8],
        "uniform_macs": 60.0,
        "entropy": 0.5,
    }
    metrics |= {"sampled_top1": [0.78, 0.80], "sampled_macs": 40.0}
    metrics |= {"sufficient_top1": 0.9, "sufficient_macs": 30.0, "sufficient_shares": [0.05, 0.1, 0.85]}
    metrics |= {"right_nowhere": 0.1, "cascade_macs": [30.0, 70.0], "cascade_top1": [0.75, 0.83], "gate_macs": 50.0}
    return record(seed, config={"method": {"alpha": 0.5, "eta": 0.2}}, **metrics | more)


def plain(seed=0, top1=0.81, size_px=128, macs=100.0):
    return record(seed, top1=top1, macs=macs, size_px=size_px)


@pytest.mark.parametrize(
    ("cost", "best"),
    [(1, None), (10, 0.5), (15, 0.6), (20, 0.7), (30, 0.4 + 0.4 / 3), (99, 0.8), (25, 0.4)],
)
def test_a_mixture_is_of_the_two_points_next_in_cost_whatever_they_score(cost, best):
    points = [(20, 0.7), (10, 0.5), (40, 0.8), (25, 0.4)]  # the last is worse than what lies around it
    assert answer.at_cost(points, cost) == (best if best is None else pytest.approx(best))


def test_every_policy_has_its_own_cost_and_the_dynamic_choice_pays_for_the_predictor():
    found = answer.outcomes(dynamic(), plain())
    assert found["dynamic choice"] == (54, 0.83) == (found["its choices permuted"][0], 0.83)
    assert found["its choices permuted"][1] == pytest.approx(0.81)
    assert found["drawn with noise, as in training"] == (44, pytest.approx(0.79))
    assert found["mixture of fixed sizes, same cost"] == (54, pytest.approx(0.70 + 0.12 * 34 / 40))
    assert found["confidence cascade, same cost"] == (54, pytest.approx(0.75 + 0.08 * 24 / 40))
    assert [found[f"always {side} px"] for side in (128, 96, 64)] == [(100, 0.84), (60, 0.82), (20, 0.70)]
    assert found["oracle, smallest sufficient"] == (30, 0.9) and found["uniform random"] == (60, pytest.approx(0.75))
    assert found["plain network, as many epochs"] == (100, 0.81)
    dear = answer.outcomes(dynamic(cascade_macs=[90.0, 99.0]), None)
    assert not {"confidence cascade, same cost", "plain network, as many epochs"} & dear.keys()


def test_policies_are_compared_seed_by_seed():
    runs = [dynamic(0), dynamic(1, top1=0.85), dynamic(2)]
    table = answer.policies(runs, answer.by_seed([plain(1, 0.80)]))
    assert table["its choices permuted"]["behind"] == pytest.approx([0.02, 0.04, 0.02])
    assert table["dynamic choice"] == {"macs": [54, 54, 54], "top1": [0.83, 0.85, 0.83], "behind": []}
    assert table["plain network, as many epochs"]["behind"] == pytest.approx([0.05])


def test_the_parts_of_the_gain_add_up_to_it():
    runs, baselines = [dynamic(0), dynamic(1, top1=0.86, full=0.80)], answer.by_seed([plain(0), plain(1, 0.79)])
    training, economy, choice, together, cheaper = answer.parts(runs, baselines).values()
    assert [sum(cut) for cut in zip(training, economy, choice, strict=True)] == pytest.approx(together)
    assert together == pytest.approx([0.02, 0.07]) and choice == pytest.approx([0.02, 0.05])
    assert list(map(len, answer.parts(runs, answer.by_seed([plain(1)])).values())) == [1, 2, 2, 1, 0] and not cheaper
    small = answer.by_seed([plain(1, 0.84, size_px=96, macs=60.0)])
    assert answer.parts(runs, baselines, small)[answer.CHEAPER] == pytest.approx([0.02])
    assert answer.spent(runs, baselines, small) == {"dynamic": [54, 54], "plain": [100, 100], "96 px": [60]}
    split, macs = answer.tallies({"a": (runs, baselines, small)})
    assert split["a"][answer.TOGETHER] == together and macs["a"]["96 px"] == [60]
    assert answer.policies(runs, baselines, small)["the same, trained at 96 px"]["behind"] == pytest.approx([0.02])


def test_training_at_several_sizes_is_paired_by_seed_and_size():
    first = answer.by_seed([record(seed, sides_px=[128, 96, 64], fixed_top1=[0.8, 0.7, 0.6]) for seed in (0, 1)])
    small = answer.by_seed([plain(1, 0.72, size_px=96), plain(2, size_px=96)])
    found = answer.several_sizes(first, answer.by_seed([plain(0), plain(1, 0.79)]), small)
    assert found == {"at full size": pytest.approx([-0.01, 0.01]), "at 96 px": pytest.approx([-0.02])}
    assert answer.several_sizes({}, answer.by_seed([plain(0)]), small) == {"at full size": [], "at 96 px": []}


def test_no_difference_below_the_error_of_the_test_set_is_bold():
    run = dynamic(0, top1=0.65, blind=0.64)
    assert "itself: **+1.00 points**" in answer.answer("alpha 0.5", [run], {})
    weak = answer.answer("alpha 0.5", [dynamic(0, right_nowhere=0.81)], {})
    assert "81 % of the test images are right at no size: **too weak" in weak
    assert "too weak" not in answer.answer("alpha 0.5", [run], {})
    run.dataset["test_images"] = 1500
    text = answer.answer("alpha 0.5", [run, run], {})
    assert "itself: +1.00 ± 0.00 points" in text and "less than the test set can tell" in text
    assert "1,500 test images alone leave a standard error of 1.2 points" in text


def test_the_answer_says_what_the_numbers_are():
    runs = [dynamic(0), dynamic(1, top1=0.81, blind=0.81)]
    text = answer.answer("alpha 0.5", runs, answer.by_seed([plain(0), plain(1)]))
    assert "itself: +1.00 ± 1.41 points against the same choices dealt out at random" in text
    assert "random, +2.0, +0.0 standard deviations of a random deal" in text
    assert "over seeds that is not beyond chance" in text
    assert "one seed tells no spread" in answer.answer("alpha 0.5", runs[:1], {})
    assert "blindly: **−3.00 ± 0.00 points**" in text and "several sizes: **+3.00 ± 0.00 points** with every" in text
    assert "against a confidence cascade: " in text and "choose nothing" not in text
    assert answer.answer("alpha 0.5", [], {}) == "**alpha 0.5**: no record yet."


def test_the_answer_tells_of_a_predictor_that_does_not_choose_and_of_a_missing_baseline():
    runs = [dynamic(0, shares=(0, 1, 0)), dynamic(1)]
    text = answer.answer("alpha 0.5", runs, {})
    assert "1 of 2 runs choose nothing but 96 px, in 0 the best single size" in text  # 128 px are better by 2 points
    assert "other sizes are drawn too (mean entropy 0.50 nats)" in text
    alone = [dynamic(0, shares=(1, 0, 0))]
    text_alone = answer.answer("alpha 0.5", alone, {})
    assert "in 1 the best" in text_alone and "The choice itself" not in text_alone
    assert answer.collapsed({"a": alone, "b": runs}).endswith("go to one size: a (128 px).")
    assert answer.collapsed({"b": runs}) == ""
    assert answer.answers({"a": (alone, {}, {}), "b": (runs, {})}).count("\n\n") == 2
    assert answer.answers({}) == "No record yet."
    assert "cannot be told: no plain network of the same seed" in text


def test_a_figure_has_means_over_seeds_and_nothing_where_there_is_no_run():
    evidence = {"alpha 0.5": [dynamic(0), dynamic(1, top1=0.85)], "alpha 0.9": [dynamic(0, shares=(1, 0, 0))], "x": []}
    found = answer.plane(evidence, answer.by_seed([plain(0), plain(1, 0.83)]))
    assert found["dynamic choice"] == [(54, pytest.approx(0.84)), (104, 0.83)]
    assert found["plain network"] == [(100, pytest.approx(0.82))]
    assert found["confidence cascade"] == [(30, 0.75), (70, 0.83)] and len(found["always one size"]) == 3
    assert not any(answer.plane({"alpha 0.5": []}, {}).values())


def latency(method_ms, static_ms=80.0, shares=None):
    return record(kind="latency", config={"shares": shares}, method_ms=method_ms, static_ms=static_ms)


def test_time_at_other_shares_is_the_sum_of_single_sizes_and_of_choosing():
    mixed, alone = latency(60.0, shares=[0.3, 0.25, 0.45]), [latency(80.0), latency(40.0), latency(20.0)]
    assert answer.choosing_ms(mixed, alone) == pytest.approx(60 - 24 - 10 - 9)
    found = answer.time_plane({"alpha 0.5": [dynamic()], "x": []}, mixed, alone)
    assert found["dynamic choice"] == [(pytest.approx(17 + 20 + 10 + 10), 0.83)]
    assert found["always one size"] == [(80, 0.84), (40, 0.82), (20, 0.70)]
    assert answer.time_plane({"alpha 0.5": []}, mixed, alone)["always one size"] == []
    assert answer.time_plane({}, mixed, alone) == {} == answer.time_plane({"alpha 0.5": [dynamic()]}, None, alone)
    text = answer.timing_words(mixed, alone)
    assert "take 43.0 ms; the mixture took 60.0 ms" in text and "97.0 ms, against 80.0 ms" in text
    assert "choosing costs time" in text
    assert "choosing costs time" not in answer.timing_words(latency(60.0, 100.0, [0.3, 0.25, 0.45]), alone)
    assert "`make latency`" in answer.timing_words(None, alone) == answer.timing_words(mixed, [None, *alone[1:]])


@pytest.mark.parametrize(
    ("reached", "eta", "state", "held"),
    [
        (50, 0.2, "active", True),
        (49, 0.2, "idle", True),
        (40, 0.2, "idle", False),
        (60, 0.2, "active", False),
        (90, 0.0, "none", False),
    ],
)
def test_the_penalty_is_judged_with_the_predictor_on_both_sides(reached, eta, state, held):
    run = dynamic(gate_macs=float(reached))
    run.config["method"]["eta"] = eta
    found = answer.penalty(run)
    assert found.pop("state").startswith(state) and found.pop("held") == held
    assert found == {"target": 54, "reached": reached + 4, "spent": 54}
    assert list(answer.penalties({"alpha 0.5": [run, dynamic(3)]})) == ["alpha 0.5, seed 0", "alpha 0.5, seed 3"]


def test_a_histogram_at_other_costs_is_the_mean_there():
    assert answer.macs_at(dynamic(), {"224": 4000, "168": 2000, "112": 1000, "predictor": 300}) == 2300


def test_shares_of_what_is_enough_leave_out_what_is_right_nowhere():
    rows = answer.sufficient_rows({"alpha 0.5": [dynamic()], "x": []})
    assert rows["enough, alpha 0.5"] == pytest.approx([0.05, 0.1, 0.75, 0.1])
    assert rows["chosen, alpha 0.5"] == [0.25, 0.25, 0.5, 0.0] and len(rows) == 2
    assert answer.segments({"x": [], "alpha 0.5": [dynamic()]}) == ["128 px", "96 px", "64 px", "right at none"]


def test_words_about_a_run_hold_its_numbers():
    assert "25 % at 128 px, 25 % at 96 px, 50 % at 64 px" in answer.usage_words("alpha 0.5", dynamic())


def test_every_network_stands_at_the_sizes_it_was_tested_at():
    found = answer.at_fixed_sizes(
        {"joint": [dynamic(0), dynamic(1, full=0.80)], "plain": [record(top1=0.8, size_px=128)]}
    )
    assert found == {
        "joint": {"128 px": [0.84, 0.80], "96 px": [0.82] * 2, "64 px": [0.70] * 2},
        "plain": {"128 px": [0.8]},
    }


def test_images_are_grouped_by_what_is_enough_and_by_what_was_chosen():
    found = answer.groups(dynamic(sufficient="2013", choices="0222"), count=8)
    assert found == {"enough: 64 px": [0], "enough: 96 px": [2], "enough: 128 px": [1]} | {
        "sent to 64 px": [1, 2, 3],
        "sent to 128 px": [0],
    }
    many = answer.groups(dynamic(sufficient="2" * 90 + "0" * 10, choices="2" * 100), count=3)
    assert many == {"enough: 64 px": [0, 30, 60], "enough: 128 px": [90, 93, 96], "sent to 64 px": [0, 33, 66]}
