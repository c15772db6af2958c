import math
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynlib import train
from dynlib.data import Batches, Samples
from dynlib.errors import InputError
from dynlib.train import Hardware, Schedule, fit

CPU = Hardware(accelerator="cpu")
SCHEDULE = Schedule(epochs=3, lr=0.05, warmup_epochs=0.5)


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = (labels[:, None, None, None] * 80 + torch.randint(0, 60, (24, 3, 8, 8), generator=generator)).byte()
    return Batches(Samples("toy", "train", images, labels, ("a", "b", "c"), "none"), batch_size=8)


def network():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8, 3))


def without_time(curve):
    return [{key: value for key, value in point.items() if key != "seconds"} for point in curve]


def test_training_lowers_the_loss_and_reports_every_epoch(batches):
    curve = fit(network(), batches, SCHEDULE, seed=1, valid=batches, hardware=CPU)
    assert [point["epoch"] for point in curve] == [1, 2, 3]
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert curve[-1]["top1"] > 1 / 3


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(batches):
    curves = [without_time(fit(network(), batches, SCHEDULE, seed=seed, hardware=CPU)) for seed in (1, 1, 2)]
    assert curves[0] == curves[1] != curves[2]


def test_every_epoch_has_an_order_of_its_own(batches):
    seen = []

    def watched(net, images, targets, done):
        seen.extend(image.sum().item() for image in images)
        return train.cross_entropy(net, images, targets, done)

    fit(network(), batches, SCHEDULE, seed=1, hardware=CPU, objective=watched)
    first, second, third = seen[:24], seen[24:48], seen[48:]
    assert first != second != third != first and sorted(first) == sorted(second) == sorted(third)


@pytest.mark.parametrize(("survived", "optimizer"), [(1, "sgd"), (2, "sgd"), (1, "adam")])
def test_a_killed_run_resumes_to_the_same_curve_and_weights(batches, tmp_path, survived, optimizer):
    schedule, whole = replace(SCHEDULE, optimizer=optimizer), network()
    expected = fit(whole, batches, schedule, seed=1, hardware=CPU)
    assert expected[-1]["loss"] < expected[0]["loss"]

    path, model, steps = tmp_path / "run.safetensors", network(), 0

    def killed(net, images, targets, done):
        nonlocal steps
        steps += 1
        if steps > survived * len(batches) + 1:  # in the middle of an epoch
            raise KeyboardInterrupt
        return train.cross_entropy(net, images, targets, done)

    with pytest.raises(KeyboardInterrupt):
        fit(model, batches, schedule, seed=1, hardware=CPU, checkpoint=path, objective=killed)
    resumed = network()
    curve = fit(resumed, batches, schedule, seed=1, hardware=CPU, checkpoint=path)
    assert without_time(curve) == without_time(expected)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_and_learning_rate(batches, value):
    def broken(net, images, targets, done):
        return train.cross_entropy(net, images, targets, done) * (value if done > 0.4 else 1.0)

    with pytest.raises(InputError, match=r"step 1 of epoch 2, learning rate 0\.0.*try a smaller lr"):
        fit(network(), batches, SCHEDULE, seed=1, hardware=CPU, objective=broken)


def test_a_checkpoint_of_another_run_is_refused(batches, tmp_path):
    path = tmp_path / "run.safetensors"
    fit(network(), batches, SCHEDULE, seed=1, hardware=CPU, checkpoint=path)
    with pytest.raises(InputError, match="belongs to another run"):
        fit(network(), batches, SCHEDULE, seed=2, hardware=CPU, checkpoint=path)


def test_a_group_with_factor_zero_stays_where_it_was(batches):
    model = network()
    before = model[0].weight.clone()
    fit(
        model,
        batches,
        SCHEDULE,
        seed=1,
        hardware=CPU,
        groups=[(model[0].parameters(), 0.0), (model[6].parameters(), 1.0)],
    )
    assert torch.equal(model[0].weight, before)


def test_the_objective_learns_how_much_of_the_schedule_is_done(batches):
    shares = []

    def watch(net, images, targets, done):
        shares.append(done)
        return train.cross_entropy(net, images, targets, done)

    fit(network(), batches, SCHEDULE, seed=1, hardware=CPU, objective=watch)
    assert shares == pytest.approx([step / 9 for step in range(9)])


def test_the_learning_rate_warms_up_and_ends_near_zero():
    schedule = Schedule(epochs=10, lr=1.0, warmup_epochs=1)
    assert schedule.lr_at(0.0) == 0.0
    assert schedule.lr_at(0.05) == pytest.approx(0.5)
    assert schedule.lr_at(0.1) == pytest.approx(1.0)
    assert schedule.lr_at(0.55) == pytest.approx(0.5)
    assert schedule.lr_at(1.0) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"epochs": 5, "lr": -1},
        {"epochs": 2, "warmup_epochs": 2},
        {"epochs": "3"},
        {"epochs": 1, "optimizer": "lion"},
    ],
)
def test_a_bad_schedule_is_refused_by_name(bad):
    with pytest.raises(InputError, match=next(reversed(bad))):
        Schedule(**bad)


def test_an_accelerator_that_is_not_here_is_refused_by_name():
    with pytest.raises(InputError, match=r"accelerator is 'abacus'; this machine allows auto, cpu"):
        Hardware("abacus")
    with pytest.raises(InputError, match=r"precision is 'bf8'; allowed: 32-true, bf16-mixed"):
        Hardware("cpu", precision="bf8")


def test_parameters_in_no_group_are_frozen_and_want_gradients_again_afterwards(batches):
    model, wanted = network(), []
    before = model[0].weight.clone()

    def watched(net, images, targets, done):
        wanted.append(model[0].weight.requires_grad)
        return train.cross_entropy(net, images, targets, done)

    fit(model, batches, SCHEDULE, seed=1, hardware=CPU, groups=[(model[6].parameters(), 1.0)], objective=watched)
    assert torch.equal(model[0].weight, before) and not any(wanted)
    assert model[0].weight.requires_grad


def test_the_watch_takes_the_place_of_top1_in_the_curve(batches):
    curve = fit(network(), batches, SCHEDULE, seed=1, hardware=CPU, valid=batches, watch=lambda *_: {"psnr_db": 3.0})
    assert [point["psnr_db"] for point in curve] == [3.0] * 3 and "top1" not in curve[0]


def test_a_phase_scales_the_schedule_of_the_recipe_and_keeps_the_share_of_its_warm_up():
    whole = Schedule(epochs=10, lr=0.2, warmup_epochs=1)
    part = train.Phase("joint", epochs=0.5, lr=0.1, weight_decay=0.0, optimizer="adam").of(whole)
    assert (part.epochs, part.warmup_epochs, part.weight_decay, part.optimizer) == (5, 0.5, 0.0, "adam")
    assert part.lr == pytest.approx(0.02)
    assert train.Phase("short", epochs=0.01).of(whole).epochs == 1


def test_of_a_result_with_logits_these_are_scored(batches):
    class Scores(NamedTuple):
        logits: torch.Tensor
        low: torch.Tensor

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, images):
            return Scores(self.net(images), images)

    model = Twice()
    assert train.evaluate(model, batches) == train.evaluate(model.net, batches)
    curve = fit(model, batches, SCHEDULE, seed=1, hardware=CPU)
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_a_data_loader_trains_and_is_watched_like_batches_of_the_library(batches):
    whole = TensorDataset(torch.cat([images for images, _ in batches.epoch(None)]).contiguous(), batches.samples.labels)
    loader = DataLoader(whole, batch_size=8, shuffle=True)
    models = network(), network()
    curves = [fit(model, loader, SCHEDULE, seed=1, valid=DataLoader(whole, 12), hardware=CPU) for model in models]
    assert without_time(curves[0]) == without_time(curves[1])  # the loop seeds the loader's order
    assert curves[0][-1]["loss"] < curves[0][0]["loss"]
    assert curves[0][-1]["top1"] == train.evaluate(models[0], batches)["top1"]


def test_a_list_of_batches_trains_and_what_has_no_length_is_refused(batches):
    assert len(fit(network(), list(batches.epoch(None)), SCHEDULE, seed=1, hardware=CPU)) == 3
    with pytest.raises(InputError, match="batches are of type generator; allowed: a DataLoader"):
        fit(network(), batches.epoch(None), SCHEDULE, seed=1, hardware=CPU)
