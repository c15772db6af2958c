"""Training a dynamic resolution network: the gate's gradient, both losses against slow references, both phases."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from networks import images
from torch import nn

from dynlib import train
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.data import Batches, load
from dynlib.papers import drnet
from dynlib.papers.drnet import Config, convert, training as drnet_training
from dynlib.papers.drnet.layers import Output, combine, straight_through
from dynlib.train import Hardware, Schedule

THIN = {"predictor_width": 1 / 8, "predictor_side": 0.5}


def small(config=None):
    torch.manual_seed(0)
    return convert(CifarResNet(8, width=8), config or Config(**THIN))


@pytest.fixture(scope="module")
def scenes():
    """Training and held-out batches of 64 px."""
    batches = Batches(load("scenes", "train", n=128, size_px=64), 32)
    held_out = load("scenes", "val", n=96, size_px=64)
    return batches, replace(batches, samples=held_out, batch_size=48)


# -------------------------------------------------------------------------------------------------------------- gate


@pytest.mark.parametrize("tau", [0.5, 1.0, 5.0])
def test_the_gate_is_one_hot_and_has_the_gradient_of_the_softmax_behind_it(tau):
    z = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    gate = straight_through(z, tau)
    assert torch.equal(gate.detach().sort(1).values.round(decimals=5), torch.tensor([0.0, 0.0, 1.0]).expand(64, 3))
    (gate * weight).sum().backward()

    torch.manual_seed(2)
    noise = -torch.empty(64, 3).exponential_().log()
    s = (((z + noise) / tau).detach().double()).softmax(1)
    assert torch.equal(gate.argmax(1), s.argmax(1))
    slow = torch.zeros(64, 3, dtype=torch.float64)  # dL/dz_i = sum_j w_j s_j (1[i = j] - s_i) / tau
    for i in range(3):
        for j in range(3):
            slow[:, i] += weight[:, j] * s[:, j] * (float(i == j) - s[:, i]) / tau
    torch.testing.assert_close(z.grad.double(), slow, rtol=1e-4, atol=1e-6)


def test_a_gate_draws_as_often_as_its_probabilities_say():
    torch.manual_seed(0)
    p = torch.tensor([0.6, 0.3, 0.1])
    shares = straight_through(p.log().expand(20_000, 3), 1.0).mean(0)
    torch.testing.assert_close(shares, p, rtol=0, atol=0.015)


@pytest.mark.parametrize("routed", [False, True])
def test_the_gradient_of_the_loss_reaches_the_predictor_and_the_classifier(routed):
    net = small(Config(routed=routed, eta=0.0, **THIN)).train()
    drnet.phases(net.config)[1].objective(net, images(8, 16), torch.arange(8), 0.0).backward()
    for part in (net.predictor, net.classifier):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters() if p.grad is not None)
    assert net.predictor[-1].weight.grad.abs().max() > 0 and net.predictor[0].weight.grad.abs().max() > 0
    assert net.classifier.fc.weight.grad.abs().max() > 0


# ------------------------------------------------------------------------------------------------------------ losses


def test_combined_logits_and_the_penalty_equal_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    each = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    gate = F.one_hot(torch.tensor([0, 2, 1, 0, 0]), 3).double()
    costs, alpha = (1.0, 0.6, 0.25), 0.5
    total = 0.0
    for n in range(5):
        for j in range(3):
            total += costs[j] * gate[n, j].item()
            if gate[n, j] == 1:
                assert torch.equal(combine(gate, each)[n], each[j, n])
    expected = max(0.0, (total / 5 - alpha) / (1.0 - 0.25))
    assert drnet_training.excess(gate, costs, alpha).item() == pytest.approx(expected, rel=1e-12)
    assert expected > 0 and drnet_training.excess(gate, costs, 0.9).item() == 0


def test_the_penalty_of_one_more_image_at_full_resolution_is_eta_over_the_batch():
    costs = (1.0, 0.6, 0.25)
    some, more = (F.one_hot(torch.tensor(choice), 3).double() for choice in ([0, 0, 2, 2], [0, 0, 0, 2]))
    difference = drnet_training.excess(more, costs, 0.3) - drnet_training.excess(some, costs, 0.3)
    assert difference.item() == pytest.approx(1 / 4)


def test_the_first_objective_is_the_sum_over_all_candidates_and_asks_no_predictor():
    net = small().train()
    net.classifier.eval()  # so that the order of the candidates changes nothing
    net.predictor.register_forward_hook(lambda *_: pytest.fail("the predictor ran"))
    labels = torch.arange(8)
    loss = drnet.phases(net.config)[0].objective(net, images(8, 16), labels, 0.0)
    parts = [F.cross_entropy(net.classify(images(8, 16), j), labels) for j in range(3)]
    torch.testing.assert_close(loss, parts[0] + parts[1] + parts[2])


def test_routed_training_has_the_logits_of_the_full_one_where_statistics_are_fixed():
    full, routed = small(), small(Config(routed=True, **THIN))
    outputs = []
    for net in (full, routed):
        net.train().classifier.eval()
        torch.manual_seed(5)
        outputs.append(net(images(16, 16)))
    assert torch.equal(outputs[0].choice, outputs[1].choice) and len(outputs[0].choice.unique()) > 1
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=1e-4, atol=1e-4)


def test_the_costs_are_shares_of_full_resolution_and_follow_the_image_size():
    net = small().train()
    for size in (16, 32, 16):
        macs, _ = net.macs((size, size))
        assert net(images(4, size)).costs == tuple(part / macs[0] for part in macs)
    assert net.macs((16, 16)) != net.macs((32, 32))


def test_the_temperature_falls_by_one_factor_a_step():
    falling = [drnet_training.temperature(1.0, 4.0, done) for done in (0.0, 0.5, 1.0)]
    assert falling == pytest.approx([4.0, 2.0, 1.0])
    assert drnet_training.temperature(0.7, None, 0.3) == 0.7


class Graded(nn.Module):
    """Free choices for 256 images of which full resolution classifies all a little better: `gain` nats."""

    def __init__(self, gain):
        super().__init__()
        self.z = nn.Parameter(torch.zeros(256, 3))
        right = torch.tensor([gain, gain / 2, 0.0])
        self.each = torch.stack([torch.stack([r.expand(256), torch.zeros(256)], 1) for r in 2 * right])

    def forward(self, images, tau):
        gate = straight_through(self.z, tau)
        return Output(combine(gate, self.each), gate.argmax(1), self.z, gate, (1.0, 0.61, 0.26))


@pytest.mark.parametrize(("eta", "reached"), [(0.5, 0.5), (0.0, 1.0)])
def test_the_penalty_brings_the_mean_expected_cost_to_alpha_and_without_it_all_go_to_full_resolution(eta, reached):
    torch.manual_seed(0)
    net = Graded(gain=0.2)
    optimizer = torch.optim.SGD(net.parameters(), lr=150.0)
    objective = drnet_training.joint(0.5, eta, 1.0, None)
    for _ in range(400):
        optimizer.zero_grad()
        objective(net, None, torch.zeros(256, dtype=torch.int64), 0.0).backward()
        optimizer.step()
    expected = (net.z.softmax(1) @ torch.tensor([1.0, 0.61, 0.26])).mean().item()
    assert expected == pytest.approx(reached, rel=0.05)


# ------------------------------------------------------------------------------------------------------------ phases


def test_runs_over_alphas_share_their_first_phase():
    first, second = drnet.phases(Config())
    assert (first.epochs, second.epochs, second.depends_on) == (0.7, 1.0, None)
    assert set(first.depends_on) < {field.name for field in fields(Config)}
    assert not {"alpha", "eta", "tau", "tau_start", "routed"} & set(first.depends_on)
    net = small()
    ((alone, factor),) = first.groups(net)
    assert factor == 1 and {*alone} == {*net.classifier.parameters()}
    (classifier, one), (predictor, tenth) = second.groups(net)
    assert (one, tenth) == (1, 0.1) and {*classifier, *predictor} == {*net.parameters()}
    ((_, _), (_, other)) = drnet.phases(Config(predictor_lr=2))[1].groups(net)
    assert other == 2


def test_a_single_candidate_trains_as_long_as_both_phases_together():
    (only,) = drnet.phases(Config(candidates=(1,)))
    assert only.epochs == sum(phase.epochs for phase in drnet.phases(Config()))
    assert only.objective is train.task_loss


def fit(net, phase, batches, schedule):
    return train.fit(
        net, batches, schedule, seed=0, objective=phase.objective, groups=phase.groups(net), hardware=Hardware("cpu")
    )


def test_both_phases_learn_and_several_resolutions_are_used_on_held_out_images(scenes):
    batches, held_out = scenes
    torch.manual_seed(0)
    net = convert(CifarResNet(8, width=4), Config(**THIN))
    first, second = drnet.phases(net.config)
    thumbnail = net.predictor[-1].weight.detach().clone()
    curve = fit(net, first, batches, Schedule(2, lr=0.05))
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert torch.equal(net.predictor[-1].weight, thumbnail)
    watched = first.watch(net, held_out)
    assert list(watched) == ["top1", "top1_at_64_px", "top1_at_48_px", "top1_at_32_px"]
    assert watched["top1"] == watched["top1_at_64_px"]

    fit(net, second, batches, Schedule(1, lr=0.05))
    assert not torch.equal(net.predictor[-1].weight, thumbnail)
    watched = second.watch(net, held_out)
    shares = [watched[f"share_at_{side}_px"] for side in (64, 48, 32)]
    assert sum(shares) == pytest.approx(1) and sum(share > 0 for share in shares) >= 2
    assert 0 < watched["entropy"] <= torch.tensor(3.0).log().item()

    report = drnet.evaluate(net, held_out)
    assert report["top1"] == pytest.approx(train.evaluate(net, held_out)["top1"])
    assert report["shares"] == pytest.approx(shares) and report["macs_expected"] == pytest.approx(
        watched["macs_expected"]
    )


def test_a_network_without_choices_has_its_top5_and_one_of_the_first_phase_its_fixed_sizes(scenes):
    _, held_out = scenes
    plain = convert(CifarResNet(8, width=4), Config(candidates=(1,)))
    logits, labels = train.predict(plain, held_out)
    among = [label in row.topk(5).indices for row, label in zip(logits, labels, strict=True)]
    assert drnet.evaluate(plain, held_out) == {"top5": pytest.approx(sum(among) / len(among))}

    (only,) = drnet.phases(Config(joint=False, **THIN))
    assert only.epochs == 1.7 and only.depends_on is None
    net = small(Config(joint=False, **THIN))
    found, watched = drnet.evaluate(net.eval(), held_out), only.watch(net, held_out)
    assert found["fixed_top1"] == pytest.approx([watched[f"top1_at_{side}_px"] for side in found["sides_px"]])
    assert found["top1"] == found["fixed_top1"][0] and "shares" not in found
    assert found["top1"] == pytest.approx(train.top1(net.classify(everything(held_out), 0), held_out.samples.labels))


def everything(batches):
    """All images as one batch."""
    return torch.cat([images for images, _ in batches.epoch(None)])


def test_a_point_of_the_curve_is_taken_on_images_spread_over_all(monkeypatch, scenes):
    _, held_out = scenes
    monkeypatch.setattr(drnet_training, "WATCHED", 24)
    fewer = drnet_training.some(held_out).samples
    assert torch.equal(fewer.images, held_out.samples.images[::4])
    monkeypatch.setattr(drnet_training, "WATCHED", 96)
    assert drnet_training.some(held_out) is held_out


def test_with_held_out_training_images_no_test_image_is_scored(scenes):
    _, held_out = scenes
    net = small()
    assert drnet.choose(net, held_out, None) == train.evaluate(net, held_out) | drnet.evaluate(net, held_out)
