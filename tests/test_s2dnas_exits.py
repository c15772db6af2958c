"""Exit rules: pure functions of stored logits, checked against plain loops."""

import pytest
import torch

from dynlib.errors import InputError
from dynlib.papers.s2dnas import exits
from dynlib.papers.s2dnas.exits import NEVER, SHARED, TOLERANCES, budget, choices, front, leave, quota, shared
from dynlib.papers.s2dnas.layers import ExitRule

COSTS = (1, 3, 10)


@pytest.fixture(scope="module")
def stored():
    """Three exits, later ones better and surer."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    noise = torch.randn(3, 400, 4, generator=generator)
    return noise + torch.nn.functional.one_hot(labels, 4) * torch.tensor([1.0, 2.0, 3.0])[:, None, None], labels


def by_hand(logits, labels, thresholds):
    """One image at a time."""
    hits = macs = 0
    for image, label in zip(logits.unbind(1), labels, strict=True):
        for exit, scores in enumerate(image):
            if exit == len(image) - 1 or scores.softmax(0).max() >= thresholds[exit]:
                hits += int(scores.argmax() == label)
                macs += COSTS[exit]
                break
    return hits / len(labels), macs / len(labels)


@pytest.mark.parametrize("thresholds", [(0.5, 0.7), (0.9, 0.3), (0.0, 0.5), (NEVER, NEVER)])
def test_leaving_offline_is_leaving_one_image_at_a_time(stored, thresholds):
    found = leave(*stored, COSTS, thresholds)
    assert (found.top1, found.macs) == pytest.approx(by_hand(*stored, thresholds))
    assert sum(found.shares) == pytest.approx(1)


def test_leaving_offline_takes_the_exits_that_the_network_takes(stored):
    taken = ExitRule((0.6, 0.8), 3)(stored[0]).taken
    shares = leave(*stored, COSTS, (0.6, 0.8)).shares
    assert shares == tuple((taken == exit).double().mean().item() for exit in range(3))


def test_a_confidence_of_exactly_the_threshold_leaves_in_the_network_and_offline(stored):
    logits, labels = stored[0][:, :1], stored[1][:1]
    exactly = float(logits[:-1].softmax(-1).amax(-1)[0, 0])
    for threshold, exit in ((exactly, 0), (exactly + 1e-6, 2)):
        assert ExitRule((threshold, NEVER), 3)(logits).taken.tolist() == [exit]
        assert leave(logits, labels, COSTS, (threshold, NEVER)).shares[exit] == 1


def test_thresholds_at_the_extremes_cost_the_first_and_the_last_exit(stored):
    first, last = shared(*stored, COSTS, (0.0, NEVER))
    assert (first.macs, last.macs) == (1, 10)
    assert (first.top1, last.top1) == (first.exit_top1[0], last.exit_top1[2])
    assert first.leaver_top1[1:] == (None, None)


def test_quotas_are_met_and_large_quotients_favour_late_exits(stored):
    for q, outcome in zip((0.5, 1.0, 1.5), quota(*stored, COSTS, (0.5, 1.0, 1.5)), strict=True):
        wanted = [q**k / (q + q**2 + q**3) for k in (1, 2, 3)]
        assert outcome.shares == pytest.approx(wanted, abs=0.011)
    costs = [outcome.macs for outcome in quota(*stored, COSTS)]
    assert costs == sorted(costs)


def test_the_budget_rule_finds_the_cheapest_of_all_combinations_that_are_accurate_enough(stored):
    logits, labels = stored
    listed = front(logits, labels, COSTS, points=6)
    found = budget(listed, 0.02)
    sure = logits.softmax(-1).amax(-1)
    steps = torch.linspace(0, 1, 6)
    grids = [[*torch.quantile(sure[exit], steps, interpolation="nearest").tolist(), NEVER] for exit in (0, 1)]
    tried = [by_hand(logits, labels, (a, b)) for a in grids[0] for b in grids[1]]
    best = (logits.argmax(-1) == labels).double().mean(1).max().item()
    assert found.macs == pytest.approx(min(macs for top1, macs in tried if top1 >= best - 0.02))
    assert found.top1 >= best - 0.02 and found.macs < COSTS[-1]
    unbeaten = {(a, m) for a, m in tried if not any(b >= a and n <= m and (b, n) != (a, m) for b, n in tried)}
    assert {(round(one.top1, 9), round(one.macs, 9)) for one in listed} == {
        (round(top1, 9), round(macs, 9)) for top1, macs in unbeaten
    }
    assert [one.macs for one in listed] == sorted(one.macs for one in listed)


def test_where_the_front_is_not_accurate_enough_the_budget_rule_takes_its_best(stored):
    listed = front(*stored, COSTS)
    assert budget(listed, -1.0) == listed[-1] and budget(listed, 1.0) == listed[0]


def test_one_exit_needs_no_threshold(stored):
    logits, labels = stored
    assert budget(front(logits[:1], labels, COSTS[:1])).thresholds == ()


def test_too_many_combinations_are_refused(stored):
    logits, labels = stored
    with pytest.raises(InputError, match="points is 1000"):
        front(logits, labels, COSTS, points=1000)


def test_what_is_chosen_on_some_images_is_applied_to_others_and_never_chosen_there(stored):
    logits, labels = stored
    held, others = (logits[:, :200], labels[:200]), (logits[:, 200:], labels[200:])
    found = choices(held, others, COSTS)
    for rule, expected in (("shared", shared(*held, COSTS)), ("quota", quota(*held, COSTS)[::2])):
        assert [tuple(row["thresholds"]) for row in found[rule]] == [one.thresholds for one in expected]
    assert [len(found[rule]) for rule in ("shared", "budget")] == [len(SHARED), len(TOLERANCES)]
    for row in (row for rows in found.values() for row in rows):
        promised, kept = leave(*held, COSTS, row["thresholds"]), leave(*others, COSTS, row["thresholds"])
        assert (row["held_out_top1"], row["top1"], tuple(row["shares"])) == (promised.top1, kept.top1, kept.shares)
        assert (row["held_out_macs"], row["macs"]) == (round(promised.macs), round(kept.macs))
    assert found["front"] == choices(held, others, COSTS)["front"] and len(found["front"]) > 10
    relabelled = choices(held, (others[0], (others[1] + 1) % 4), COSTS)
    assert [row["thresholds"] for row in relabelled["budget"]] == [row["thresholds"] for row in found["budget"]]


def test_many_exits_have_coarser_grids_and_one_exit_has_nothing_to_choose(stored, monkeypatch):
    monkeypatch.setattr(exits, "MOST_CELLS", 200_000)  # a thousandth, or the grid of five exits takes ten seconds
    logits, labels = stored
    five = (torch.cat([logits, logits[:2]])[:, :100], labels[:100])
    assert len(choices(five, five, (1, 2, 3, 4, 5))["budget"][0]["thresholds"]) == 4
    one = (logits[:1], labels)
    assert {row["macs"] for rows in choices(one, one, COSTS[:1]).values() for row in rows} == {COSTS[0]}
