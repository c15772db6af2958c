"""The runs that the chapter compares: those that the profile and the command line make."""

from itertools import pairwise

import pytest

from dynlib import chapters, recipes, settings
from dynlib.papers import sampling
from dynlib.papers import sampling_evidence as evidence
from dynlib.records import Record


@pytest.mark.parametrize("task", evidence.RECIPES)
@pytest.mark.parametrize("name", evidence.RUNS)
def test_the_command_of_a_run_makes_the_run(task, name):
    words = evidence.command(task, name, 2).split()
    given = settings.parse(value for flag, value in pairwise(words) if flag == "-p")
    values = chapters.profile_values("04_sampling", "public") | given
    config, recipe = (
        settings.build(kind, settings.part_of(kind, values)) for kind in (sampling.Config, recipes.Recipe)
    )
    assert config == sampling.Config(**{"gamma": evidence.GAMMA, "sigma": evidence.SIGMA} | evidence.RUNS[name])
    assert recipe.task.name == task and words[-2:] == ["--seed", "2"]


def test_no_two_runs_are_one():
    configs = [
        sampling.Config(**{"gamma": evidence.GAMMA, "sigma": evidence.SIGMA} | fields)
        for fields in evidence.RUNS.values()
    ]
    assert len(set(configs)) == len(configs) and sampling.Config(gamma=evidence.GAMMA, sigma=evidence.SIGMA) in configs


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
    assert evidence.curve(FOUND, "stochastic", "miou", 0) == [(20, 0.3), (60, 0.45), (100, 0.5)]
    assert evidence.curve(FOUND, "pruned", "miou", 0) == [(50, 0.2), (100, 0.5)]
    assert evidence.curve(FOUND, "stochastic", "miou", 0, end=None) == [(20, 0.3), (60, 0.45)]
    assert evidence.curve(FOUND, "stochastic", "miou", 1) == []
    points = [(20, 0.3), (60, 0.45), (100, 0.5)]
    assert evidence.at(points, 40) == pytest.approx(0.375) and evidence.at(points, 100) == 0.5
    assert evidence.at(points, 19) is None and evidence.at(points, 101) is None and evidence.at([], 5) is None


def test_gaps_are_of_each_run_against_the_curve_at_its_cost_where_that_reaches():
    orders = {order.claim: order for order in evidence.orders(FOUND, "segmentation")}
    assert orders["stochastic above deterministic"].gaps == pytest.approx((0.05,))  # 10 is below that curve's end
    assert orders["stochastic above uniform"].gaps == pytest.approx(((0.15 + 0.2) / 2,))
    assert orders["deterministic above uniform"].gaps == pytest.approx((0.1,))
    assert orders["interpolation above zeros"].gaps == pytest.approx((0.1,))
    assert orders["grid or none: alike"].gaps == pytest.approx((0.025,))
    assert orders["pruned and sampled above pruned"].gaps == pytest.approx((0.05,))
    for without in ("RBF above average", "interpolation above reuse", "two masks above one"):
        assert orders[without][1:] == ((), "no runs at a cost that both sides reach")


def test_a_row_has_what_uniform_sampling_reaches_at_its_cost():
    rows = {"ours": "stochastic, gamma 0.3", "average": "average", "dense": "dense"}
    levels = evidence.levels(FOUND, evidence.Exhibit("segmentation", "", rows, ""))
    assert levels == {"ours": [pytest.approx(0.3)], "average": [], "dense": []}


def test_a_gap_is_of_one_seed_and_of_what_all_seeds_have():
    second = {"dense": [dense(100, 0.6, 1)], "stochastic, gamma 0.3": [record(60, 0.5, 1)]}
    second |= {"deterministic, gamma 1.0": [record(60, 0.52, 1)], "uniform, density 0.25": [dense(20, 0.2, 1)]}
    both = {name: [*runs, *second.get(name, [])] for name, runs in FOUND.items()}
    above_line, above_even, *_ = evidence.orders(both, "segmentation")
    assert above_line.gaps == pytest.approx((0.05, -0.02)) and above_line.verdict == "undecided"
    assert above_even.gaps == pytest.approx((0.15, 0.1))  # without gamma 1.0, which the second seed lacks


@pytest.mark.parametrize(
    ("gaps", "verdict", "alike"),
    [
        ([], "no runs at a cost that both sides reach", "no runs at a cost that both sides reach"),
        ([0.1], "one seed, undecided", "one seed, undecided"),
        ([0.1, 0.12, 0.11], "confirmed", "not confirmed: they differ"),
        ([-0.1, -0.12, -0.11], "not confirmed: the reverse", "not confirmed: they differ"),
        ([0.01, -0.01, 0.0], "undecided", "no difference beyond 2.5 points seen"),
        ([0.1, 0.13], "undecided", "no difference beyond 19.1 points seen"),  # 7.7 standard errors; two need 12.7
    ],
)
def test_a_verdict_needs_two_seeds_and_student_s_bound(gaps, verdict, alike):
    assert evidence.verdict(gaps) == verdict and evidence.verdict(gaps, alike=True) == alike


def test_every_claim_is_of_runs_that_its_task_is_asked_for():
    for task, claims in evidence.CLAIMS.items():
        for claim in claims:
            for side in (claim.runs, claim.against):
                assert any(name.startswith(side) for name in evidence.configs(task)), (task, side)


def test_the_plane_has_a_point_a_run_averaged_over_seeds():
    plane = evidence.plane(FOUND | {"uniform, density 0.25": [dense(20, 0.1), dense(30, 0.3, 1)]}, "miou")
    assert plane["uniform"] == [(25, pytest.approx(0.2))] and plane["dense"] == [(100, 0.5)]
    assert plane["stochastic"] == [(60, 0.45), (20, 0.3)] and list(plane)[:2] == ["stochastic", "dense"]
    assert not any(evidence.plane({name: [] for name in evidence.RUNS}, "miou").values())


def test_exhibits_name_runs_that_their_task_is_asked_for_and_what_is_missing_has_its_command():
    for task, _, rows, said in evidence.EXHIBITS:
        assert set(rows.values()) <= evidence.configs(task).keys() and said
    exhibit = evidence.Exhibit("segmentation", "", {"one": "dense", "two": "zeros", "three": "reuse"}, "in words")
    claimed, *notes = evidence.notes({"dense": [1], "zeros": [], "reuse": [], "average": []}, exhibit)
    for name, note in zip(("zeros", "reuse"), notes, strict=True):
        assert name in note and evidence.command("segmentation", name) in note
    assert "in words" in claimed


def test_words_on_sigma_tell_how_far_a_sample_reaches():
    runs = [record(1, 0.5), record(1, 0.5, 1)]
    for run, sigmas in zip(runs, ([1.0, 0.95], [1.02, 3.0]), strict=True):
        run.metrics["sigma_by_mask"] = sigmas
    assert "between 0.95 and 3.00" in (words := evidence.sigma_words(runs)) and "reaches 1 to 3 positions" in words
    assert "reaches 3 positions" in evidence.sigma_words(runs[:1]) and evidence.sigma_words([]) == ""


def test_stochastic_runs_stand_beside_a_smaller_image_price_by_price():
    words = evidence.against_uniform(FOUND, "segmentation")
    assert words.endswith("by price: gamma 0.3: +15.0 points (n = 1), gamma 1.0: +20.0 points (n = 1).")
    assert evidence.against_uniform({"dense": [], "stochastic, gamma 1.0": []}, "segmentation") == ""
