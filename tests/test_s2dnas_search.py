"""The search: its space, legal tokens, a controller that learns, caches, and jobs that survive their workers."""

import math
from functools import partial

import pytest
import torch
from jobs_for_workers import square

from dynlib.book.jobs import spread
from dynlib.errors import InputError
from dynlib.papers.s2dnas.exits import Outcome
from dynlib.papers.s2dnas.search import Judge, Measured, Space, best, exhaustive, policy_search, random_search, reward

SMALL = Space(sizes=1, stages=2, groups=8)


def outcome(top1, macs):
    return Outcome((0.5,), top1, macs, (1.0,), (top1,), (top1,))


class Toy:
    """Accuracy that grows with the first stage, at a cost that grows faster; counts what it measures."""

    def __init__(self):
        self.asked = []

    def __call__(self, configs):
        self.asked += configs
        return [self.measure(config) for config in configs]

    def measure(self, config):
        first = sum(row[1] / row[-1] for row in config.cuts) / len(config.cuts)
        reused = sum(map(sum, config.reuse))
        return Measured(
            (outcome(0.5 + 0.2 * first + 0.02 * reused, 100 + 900 * first**2), outcome(0.1, 900.0)), 1000, 0.1
        )


@pytest.mark.parametrize("space", [Space(1, 3, 8), Space(2, 2, 8), Space(1, 3, 4)])
def test_every_architecture_is_listed_once_and_decodes(space):
    listed = list(space.every())
    assert len(listed) == len(set(listed)) == len(space) == len({space.config(tokens) for tokens in listed})
    assert space.densest() in listed


def legal(space, tokens):
    return all(token in space.allowed(tokens[:place]) for place, token in enumerate(tokens))


def test_what_is_allowed_step_by_step_is_exactly_the_space():
    space = Space(1, 3, 5)
    prefixes = [()]
    for _ in range(space.length):
        prefixes = [(*prefix, token) for prefix in prefixes for token in space.allowed(prefix)]
    assert sorted(prefixes) == sorted(space.every())


def test_draws_are_legal_even_and_follow_the_generator():
    space = Space(1, 2, 4)
    draws = [space.draw(torch.Generator().manual_seed(seed)) for seed in range(600)]
    assert all(legal(space, tokens) for tokens in draws)
    counts = [draws.count(tokens) for tokens in space.every()]
    assert min(counts) > 60 and max(counts) < 140  # 100 each are expected


def test_the_policy_finds_better_architectures_than_it_began_with_and_repeats_are_free():
    toy = Toy()
    history = policy_search(Space(1, 3, 8), Judge(toy), 200, seed=0, lr=1e-2)
    early, late = (sum(c.reward for c in part) / 50 for part in (history[:50], history[-50:]))
    assert late > early + 0.01
    assert len(toy.asked) == len(set(toy.asked)) == len({c.config for c in history}) < 200
    assert all(math.isfinite(c.reward) for c in history)


def test_a_search_repeats_under_its_seed():
    runs = [policy_search(Space(), Judge(Toy()), 12, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_a_second_search_finds_what_the_first_has_measured():
    judge = Judge(toy := Toy())
    ranked = exhaustive(SMALL, judge)
    assert len(ranked) == len(toy.asked) == 14
    random_search(SMALL, judge, 10, seed=0)
    assert len(toy.asked) == 14
    rewards = [candidate.reward for candidate in ranked]
    assert rewards == sorted(rewards, reverse=True) and best(ranked, 1) == ranked[:1]


def test_random_search_never_measures_twice_and_cannot_exceed_the_space():
    assert len({c.config for c in random_search(SMALL, Judge(Toy()), 14, seed=0)}) == 14
    with pytest.raises(InputError, match="samples is 15; the space has 1 to 14"):
        random_search(SMALL, Judge(Toy()), 15, seed=0)


def test_the_reward_is_accuracy_times_the_cost_ratio_to_the_power_omega():
    assert reward(0.9, 500, 1000, -0.07) == pytest.approx(0.9 * 2**0.07)
    assert reward(0.9, 1000, 1000, -0.3) == 0.9
    (candidate,) = Judge(Toy())([SMALL.config((1, 0))])
    assert candidate.outcome.top1 > 0.1  # the better of two thresholds


def test_a_controller_at_the_rate_0_never_learns():
    learning = policy_search(SMALL, Judge(Toy()), 60, seed=0, lr=0.1)
    untaught = policy_search(SMALL, Judge(Toy()), 60, seed=0, lr=0.0)
    assert learning[:5] == untaught[:5]
    assert len({candidate.config for candidate in learning[-20:]}) < len({c.config for c in untaught[-20:]})


@pytest.mark.parametrize("kw", [{"sizes": 0}, {"stages": 1}, {"groups": True}, {"stages": 9}])
def test_a_space_without_architectures_is_refused(kw):
    with pytest.raises(InputError, match=next(iter(kw))):
        Space(**kw)


# --------------------------------------------------------------------------------------------------------------- jobs


def test_jobs_in_this_process_keep_their_order_and_need_a_worker():
    assert spread(square, range(3)) == [0, 1, 4]
    with pytest.raises(InputError, match="workers is 0"):
        spread(square, [1], workers=0)


def test_a_local_worker_that_dies_costs_its_job_a_retry(tmp_path):
    mortal = partial(square, folder=str(tmp_path), dies_at=3)
    assert spread(mortal, range(6), workers=2) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "died").exists()


def test_jobs_run_on_a_cluster_of_two_worker_processes_one_of_which_dies(tmp_path):
    from distributed import LocalCluster

    mortal = partial(square, folder=str(tmp_path), dies_at=3)
    quiet = {"dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **quiet) as cluster:
        assert spread(mortal, range(6), scheduler=cluster.scheduler_address) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "died").exists()


def test_a_scheduler_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        spread(square, [1], scheduler="nonsense://here")
