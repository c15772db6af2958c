"""Controls of the choice: each policy against a slow loop on made-up evidence, and the report as plain values."""

import itertools
import json
import statistics
from dataclasses import replace

import pytest
import torch

from dynlib.papers.drnet import policies as controls
from dynlib.papers.drnet.policies import Evidence

COSTS = (100, 60, 25)


@pytest.fixture(scope="module")
def evidence():
    """200 images of 4 classes at 3 candidates, of which the larger ones are right more often."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (200,), generator=generator)
    logits = torch.randn(3, 200, 4, generator=generator)
    logits += torch.tensor([2.0, 1.5, 0.5])[:, None, None] * torch.nn.functional.one_hot(labels, 4)
    z = torch.randn(200, 3, generator=generator)
    return Evidence(logits, z, labels, ((32, 32), (24, 24), (16, 16)), COSTS, 7)


def right(evidence, j, n):
    return int(evidence.logits[j, n].argmax()) == int(evidence.labels[n])


def test_a_policy_is_scored_as_a_slow_loop_scores_it(evidence):
    choice = controls.chosen(evidence).tolist()
    assert choice == [max(range(3), key=z.__getitem__) for z in evidence.z.tolist()]
    found = controls.score(evidence, torch.tensor(choice))
    assert found.top1 == pytest.approx(sum(right(evidence, j, n) for n, j in enumerate(choice)) / 200)
    assert found.macs == pytest.approx(sum(COSTS[j] for j in choice) / 200)
    assert found.shares == pytest.approx([choice.count(j) / 200 for j in range(3)])


def test_the_label_is_among_the_five_largest_as_a_slow_loop_finds_it():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 50, 9, generator=generator), torch.arange(50) % 9
    evidence = Evidence(logits, torch.zeros(50, 2), labels, ((8, 8), (4, 4)), (4, 1), 1)
    choice = torch.arange(50) % 2
    ranked = [sorted(range(9), key=lambda c: -logits[n % 2, n, c])[:5] for n in range(50)]
    assert controls.top5(evidence, choice) == sum(n % 9 in ranked[n] for n in range(50)) / 50


def test_one_candidate_for_all_has_its_own_accuracy_and_cost(evidence):
    for j, found in enumerate(controls.fixed(evidence)):
        assert found.top1 == pytest.approx(sum(right(evidence, j, n) for n in range(200)) / 200)
        assert found.macs == COSTS[j]


def test_dealt_out_choices_have_mean_and_deviation_of_all_permutations():
    generator = torch.Generator().manual_seed(3)
    labels, logits = torch.tensor([0, 1, 1, 0, 2, 1]), torch.randn(3, 6, 3, generator=generator)
    few = Evidence(logits, torch.randn(6, 3, generator=generator), labels, ((32, 32), (24, 24), (16, 16)), COSTS, 7)
    choice = controls.chosen(few).tolist()
    every = [
        sum(right(few, j, n) for n, j in enumerate(deal)) / 6 for deal in itertools.permutations(choice)
    ]  # all 720, equal ones too
    assert len(set(choice)) > 1 and len(set(every)) > 1
    assert controls.permuted(few) == (pytest.approx(statistics.fmean(every)), pytest.approx(statistics.pstdev(every)))


def test_choices_of_one_size_cannot_be_dealt_out_otherwise(evidence):
    same = replace(evidence, z=torch.tensor([0.0, 1.0, 0.0]).expand(200, 3))
    mean, deviation = controls.permuted(same)
    assert mean == pytest.approx(controls.fixed(same)[1].top1) and deviation == pytest.approx(0, abs=1e-9)


def test_a_uniform_draw_costs_the_plain_mean_and_a_noisy_one_what_the_gate_expects(evidence):
    for draws, p in (
        (controls.uniform(evidence, draws=200), torch.full((200, 3), 1 / 3)),
        (controls.sampled(evidence, draws=200), evidence.z.softmax(1)),
    ):
        expected = (p @ torch.tensor(COSTS).float()).mean().item()
        assert sum(draw.macs for draw in draws) / 200 == pytest.approx(expected, rel=0.01)
    assert controls.gate_macs(evidence) == pytest.approx(expected)


def test_the_smallest_sufficient_candidate_is_found_as_by_trying(evidence):
    slow = [next((j for j in (2, 1, 0) if right(evidence, j, n)), 2) for n in range(200)]
    found = controls.smallest_sufficient(evidence)
    assert found.tolist() == slow and {0, 1, 2} == set(slow)
    best = controls.score(evidence, found)
    assert best.top1 == pytest.approx(sum(any(right(evidence, j, n) for j in range(3)) for n in range(200)) / 200)
    assert best.top1 >= max(outcome.top1 for outcome in controls.fixed(evidence))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 1.1])
def test_a_cascade_pays_for_every_attempt(evidence, threshold):
    hits, paid = 0, 0
    for n in range(200):
        for j in (2, 1, 0):
            paid += COSTS[j]
            if float(evidence.logits[j, n].softmax(0).max()) >= threshold or j == 0:
                hits += right(evidence, j, n)
                break
    found = controls.cascade(evidence, threshold)
    assert (found.top1, found.macs) == pytest.approx((hits / 200, paid / 200))


def test_the_report_is_plain_values_that_fit_together(evidence):
    report = controls.report(evidence, alpha=0.5)
    assert json.loads(json.dumps(report)) == report
    assert report["macs_expected"] == report["macs_classifier"] + 7
    assert report["gate_over_alpha"] == pytest.approx(report["gate_macs"] / 50)
    assert report["sides_px"] == [32, 24, 16] and report["macs_by_side"] == list(COSTS)
    assert sum(report["shares"]) == pytest.approx(1) == pytest.approx(sum(report["sufficient_shares"]))
    assert report["sufficient_top1"] + report["right_nowhere"] == pytest.approx(1)
    expected = sum(s * top1 for s, top1 in zip(report["shares"], report["fixed_top1"], strict=True))
    assert report["permuted_top1"] == pytest.approx(expected)
    for n, (j, least) in enumerate(zip(map(int, report["choices"]), map(int, report["sufficient"]), strict=True)):
        assert j == int(evidence.z[n].argmax())
        assert least == next((i for i in (2, 1, 0) if right(evidence, i, n)), 3)
    assert len(report["uniform_top1"]) == len(report["sampled_top1"]) == controls.DRAWS
    slow = -(evidence.z.softmax(1) * evidence.z.log_softmax(1)).sum(1).mean().item()
    assert report["entropy"] == pytest.approx(slow)
