"""The runs that the chapter compares: those that the profile and the command line make."""

from itertools import pairwise

import pytest

from dynlib import chapters, runs, settings
from dynlib.papers import sampling
from dynlib.papers import sampling_evidence as evidence
from dynlib.records import Record


@pytest.mark.parametrize("task", evidence.RECIPES)
@pytest.mark.parametrize("name", evidence.RUNS)
def test_the_command_of_a_run_makes_the_run(task, name):
    words = evidence.command(task, name, 2).split()
    given = settings.parse(value for flag, value in pairwise(words) if flag == "-p")
    values = chapters.profile_values("04_sampling", "public") | given
    config, recipe = (settings.build(kind, settings.part_of(kind, values)) for kind in (sampling.Config, runs.Recipe))
    assert config == sampling.Config(**{"gamma": evidence.GAMMA, "sigma": evidence.SIGMA} | evidence.RUNS[name])
    assert recipe.task.name == task and words[-2:] == ["--seed", "2"]


def test_no_two_runs_are_one():
    configs = [
        sampling.Config(**{"gamma": evidence.GAMMA, "sigma": evidence.SIGMA} | fields)
        for fields in evidence.RUNS.values()
    ]
    assert len(set(configs)) == len(configs) and sampling.Config(gamma=evidence.GAMMA, sigma=evidence.SIGMA) in configs


def record(cost, score, seed=0, metric="miou"):
    metrics = {metric: score, "macs": 10 * cost, "macs_expected": cost, f"{metric}_mean": score}
    return Record("sampling", "training", "public", {}, "", {}, seed, metrics, [], {}, 0.0)


def dense(cost, score, seed=0):
    return Record("sampling", "training", "public", {}, "", {}, seed, {"miou": score, "macs": cost}, [], {}, 0.0)


FOUND = {
    "dense": [dense(100, 0.5)],
    "uniform, density 0.25": [record(20, 0.1)],
    "deterministic, gamma 0.3": [record(60, 0.4)],
    "stochastic, gamma 0.1": [record(60, 0.45)],
    "stochastic, gamma 0.3": [record(20, 0.3)],
    "zeros": [record(40, 0.275)],
    "average": [record(10, 0.5)],
}


def test_a_curve_joins_the_runs_of_a_family_and_ends_in_the_dense_network():
    assert evidence.curve(FOUND, "stochastic", "miou", 0) == [(20, 0.3), (60, 0.45), (100, 0.5)]
    assert evidence.curve(FOUND, "stochastic", "miou", 1) == []
    points = [(20, 0.3), (60, 0.45), (100, 0.5)]
    assert evidence.at(points, 40) == pytest.approx(0.375) and evidence.at(points, 100) == 0.5
    assert evidence.at(points, 19) is None and evidence.at(points, 101) is None and evidence.at([], 5) is None


def test_gaps_are_taken_at_equal_cost_from_both_sides_where_the_curves_reach():
    orders = {order.claim: order for order in evidence.orders(FOUND, "miou")}
    assert orders["stochastic above deterministic"].gaps == pytest.approx((0.05,))  # 20 is below that curve's end
    assert orders["stochastic above uniform"].gaps == pytest.approx(((0.2 + 0.15 + 0.2) / 3,))
    assert orders["deterministic above uniform"].gaps == pytest.approx((0.1,))
    assert orders["interpolation above zeros"].gaps == pytest.approx((0.1,))
    assert orders["RBF above average"].gaps == pytest.approx((-(0.2 + 0.05) / 2,))
    assert "interpolation above reuse" not in orders
    assert evidence.orders({"reuse": []}, "miou")[-1] == ("interpolation above reuse", (), "no runs to compare")


def test_a_gap_is_of_one_seed():
    second = {"dense": [dense(100, 0.6, 1)], "stochastic, gamma 0.1": [record(60, 0.5, 1)]}
    second |= {"deterministic, gamma 0.3": [record(60, 0.52, 1)]}
    both = {name: [*runs, *second.get(name, [])] for name, runs in FOUND.items()}
    first, *_ = evidence.orders(both, "miou")
    assert first.gaps == pytest.approx((0.05, -0.02)) and first.verdict == "undecided"


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([], "no runs to compare"),
        ([0.1], "one seed, undecided"),
        ([0.1, 0.12, 0.11], "confirmed"),
        ([-0.1, -0.12, -0.11], "not confirmed: the reverse"),
        ([0.1, -0.05], "undecided"),
        ([0.1, 0.13], "undecided"),  # 7.7 standard errors, of which two seeds need 12.7
    ],
)
def test_a_verdict_needs_two_seeds_and_student_s_bound(gaps, verdict):
    assert evidence.verdict(gaps) == verdict


def test_the_plane_has_a_point_a_run_averaged_over_seeds():
    plane = evidence.plane(FOUND | {"uniform, density 0.25": [record(20, 0.1), record(30, 0.3, 1)]}, "miou")
    assert plane["uniform"] == [(25, pytest.approx(0.2))] and plane["dense"] == [(100, 0.5)]
    assert plane["stochastic"] == [(60, 0.45), (20, 0.3)] and list(plane)[:2] == ["stochastic", "dense"]
    assert not any(evidence.plane({name: [] for name in evidence.RUNS}, "miou").values())


def test_exhibits_name_runs_that_their_task_is_asked_for_and_what_is_missing_has_its_command():
    for task, _, rows, said in evidence.EXHIBITS:
        assert set(rows.values()) <= evidence.configs(task).keys() and said
    (note,) = evidence.missing({"dense": [1], "zeros": [], "reuse": []}, ["dense", "zeros"], "segmentation")
    assert "zeros" in note and "reuse" not in note and evidence.command("segmentation", "zeros") in note
    assert evidence.missing({"dense": [1]}, ["dense"], "segmentation") == []
