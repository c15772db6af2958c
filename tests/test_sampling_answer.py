"""What records of sampled networks say: gaps at equal cost, verdicts, and sentences."""

import pytest

from dynlib.book.legacy import sampling_answer as answer, sampling_evidence as evidence
from dynlib.book.records import Record


def record(cost, score, seed=0, metric="miou"):
    metrics = {metric: score, "macs": 10 * cost, "macs_backbone": cost, f"{metric}_mean": score, "density": 0.5}
    return Record("sampling", "training", "public", {}, "", {}, seed, metrics, [], {}, 0.0)


def dense(cost, score, seed=0):
    metrics = {"miou": score, "macs": 2 * cost, "macs_backbone": cost}
    return Record("sampling", "training", "public", {}, "", {}, seed, metrics, [], {}, 0.0)


FOUND = {
    "dense": [dense(100, 0.5)],
    "uniform, density 0.25": [dense(20, 0.1)],
    "deterministic, gamma 1.0": [record(60, 0.4)],
    "deterministic, gamma 3.0": [record(10, 0.4)],
    "stochastic, gamma 0.3": [record(60, 0.45)],
    "stochastic, gamma 1.0": [record(20, 0.3)],
    "zeros": [record(40, 0.275)],
    "average": [record(10, 0.5)],
    "no grid": [record(40, 0.4)],
    "pruned 0.5": [dense(50, 0.2)],
    "sampled, pruned 0.5": [record(75, 0.4)],
}


def test_a_curve_joins_the_runs_of_a_family_and_ends_in_the_dense_network():
    assert answer.curve(FOUND, "stochastic", "miou", 0) == [(20, 0.3), (60, 0.45), (100, 0.5)]
    assert answer.curve(FOUND, "pruned", "miou", 0) == [(50, 0.2), (100, 0.5)]
    assert answer.curve(FOUND | {"dense": [dense(50, 0.5)]}, "stochastic", "miou", 0) == [(20, 0.3), (50, 0.5)]
    assert answer.curve(FOUND, "stochastic", "miou", 1) == []
    points = [(20, 0.3), (60, 0.45), (100, 0.5)]
    assert answer.at(points, 40) == pytest.approx(0.375) and answer.at(points, 100) == 0.5
    assert answer.at(points, 19) is None and answer.at(points, 101) is None and answer.at([], 5) is None


def test_gaps_are_of_each_run_against_the_curve_at_its_cost_where_that_reaches():
    orders = {order.claim: order for order in answer.orders(FOUND, "segmentation")}
    assert orders["stochastic above deterministic"].gaps == pytest.approx(((0.05 - 0.1) / 2,))
    assert orders["stochastic above uniform"].gaps == pytest.approx(((0.15 + 0.2) / 2,))
    assert orders["deterministic above uniform"].gaps == pytest.approx((0.1,))
    assert orders["interpolation above zeros"].gaps == pytest.approx((0.1,))
    assert orders["grid or none: alike"].gaps == pytest.approx((0.025,))
    assert orders["pruned and sampled above pruned"].gaps == pytest.approx((0.05,))
    assert orders["stochastic above uniform"].each == "gamma 0.3: +15.0; gamma 1.0: +20.0"
    assert orders["stochastic above deterministic"].each == "gamma 0.3: +5.0; gamma 1.0: −10.0"
    assert orders["interpolation above zeros"].each == ""


def test_where_nothing_can_be_compared_the_verdict_says_why():
    orders = {order.claim: order for order in answer.orders(FOUND, "segmentation")}
    assert orders["RBF above average"][1:3] == ((), {"": "average costs less than all of stochastic"})
    assert orders["interpolation above reuse"][1:] == ((), {}, "no record yet of reuse")
    dear = FOUND | {"stochastic, gamma 0.3": [], "stochastic, gamma 1.0": [record(101, 0.6)]}
    above_line, above_even, *_ = answer.orders(dear, "segmentation")
    assert above_even.verdict == "stochastic costs more than the dense network"
    assert above_line.by_run["gamma 1.0"] == "stochastic costs more than the dense network"
    without = answer.orders(FOUND | {"uniform, density 0.25": []}, "segmentation")
    assert without[1].verdict == "no record yet of uniform"


def test_a_row_has_what_uniform_sampling_reaches_at_its_cost():
    rows = {"ours": "stochastic, gamma 0.3", "average": "average", "dense": "dense"}
    levels = answer.levels(FOUND, evidence.Exhibit("segmentation", "", rows, ""))
    assert levels == {"ours": [pytest.approx(0.3)], "average": [], "dense": []}


def test_a_gap_is_of_one_seed_and_of_what_all_seeds_have():
    second = {"dense": [dense(100, 0.6, 1)], "stochastic, gamma 0.3": [record(60, 0.5, 1)]}
    second |= {"deterministic, gamma 1.0": [record(60, 0.52, 1)], "uniform, density 0.25": [dense(20, 0.2, 1)]}
    both = {name: [*runs, *second.get(name, [])] for name, runs in FOUND.items()}
    above_line, above_even, *_ = answer.orders(both, "segmentation")
    assert above_line.gaps == pytest.approx((0.05, -0.02)) and above_line.verdict == "undecided"
    assert above_even.gaps == pytest.approx((0.15, 0.1))  # without gamma 1.0, which the second seed lacks


@pytest.mark.parametrize(
    ("gaps", "verdict", "alike"),
    [
        ([0.1], "one seed, undecided", "one seed, undecided"),
        ([0.1, 0.12, 0.11], "confirmed", "not confirmed: they differ"),
        ([-0.1, -0.12, -0.11], "not confirmed: the reverse", "not confirmed: they differ"),
        ([0.01, -0.01, 0.0], "undecided", "no difference beyond 2.5 points seen"),
        ([0.1, 0.13], "undecided", "no difference beyond 19.1 points seen"),  # 7.7 standard errors; two need 12.7
    ],
)
def test_a_verdict_needs_two_seeds_and_student_s_bound(gaps, verdict, alike):
    assert answer.verdict(gaps) == verdict and answer.verdict(gaps, alike=True) == alike


def test_every_claim_is_of_runs_that_its_task_is_asked_for():
    for task, claims in answer.CLAIMS.items():
        for claim in claims:
            for side in (claim.runs, claim.against):
                assert any(name.startswith(side) for name in evidence.configs(task)), (task, side)


def test_the_plane_has_a_point_a_run_averaged_over_seeds():
    plane = answer.plane(FOUND | {"uniform, density 0.25": [dense(20, 0.1), dense(30, 0.3, 1)]}, "miou")
    assert plane["uniform"] == [(25, pytest.approx(0.2)), (100, 0.5)] and plane["dense"] == [(100, 0.5)]
    assert plane["stochastic"] == [(60, 0.45), (20, 0.3), (100, 0.5)] and list(plane)[:2] == ["stochastic", "dense"]
    assert not any(answer.plane({name: [] for name in evidence.RUNS}, "miou").values())


def test_words_on_sigma_tell_how_far_a_sample_reaches():
    runs = [record(1, 0.5), record(1, 0.5, 1)]
    for run, sigmas in zip(runs, ([1.0, 0.95], [1.02, 3.0]), strict=True):
        run.metrics["sigma_by_mask"] = sigmas
    assert "between 0.95 and 3.00" in (words := answer.sigma_words(runs)) and "reaches 1 to 3 positions" in words
    assert "reaches 3 positions" in answer.sigma_words(runs[:1]) and answer.sigma_words([]) == ""


def test_the_answer_stands_beside_a_smaller_image_price_by_price():
    nothing = {"segmentation": {}, "detection": {}}
    assert answer.beside_smaller(nothing) == "Accuracy: no record yet."
    words = answer.beside_smaller(nothing | {"segmentation": FOUND})
    told = "by share of the dense cost +15.0 at 60 %, +20.0 at 20 % (points, n = 1)."
    assert words == f"On CamVid, one seed, which decides nothing: {told}"
    lower = record(20, 0.0501), record(20, 0.0699, 1)
    second = {"uniform, density 0.25": [dense(20, 0.1), dense(20, 0.12, 1)], "stochastic, gamma 1.0": [*lower]}
    sure = FOUND | {"dense": [dense(100, 0.5), dense(100, 0.5, 1)]} | second
    words = answer.beside_smaller(nothing | {"segmentation": sure})
    assert "at 2 prices **above beyond chance at 0, below at 1**" in words and "−5.0* at 20 %" in words
    assert words.endswith("(points, n = 2). A star: beyond chance.")
    assert answer.beside_smaller(nothing | {"segmentation": sure | {"dense": []}}) == "Accuracy: no record yet."


def test_released_models_stand_beside_their_smaller_images():
    printed = {"net, 1 px": {"macs": 10, "map": 30}, "net, 2 px": {"macs": 20, "map": 40}}
    words = answer.released_words(printed | {"sparse, 2 px, gamma 1": {"macs": 15, "map": 36.5}})
    assert words.endswith(": +1.5 points (gamma 1).")


def test_the_summary_sorts_the_orders_of_a_task_by_what_became_of_them():
    (line,) = answer.summary({"segmentation": FOUND}).splitlines()
    assert "**one seed, undecided**: stochastic above deterministic, stochastic above uniform" in line
    assert "**no record yet**: RBF above convolution" in line
