"""The three stages: what each trains, what it lowers, what is watched."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torchvision.models.resnet import BasicBlock, ResNet

from dynlib import train
from dynlib.backbones.thin import thin
from dynlib.data import Batches, load
from dynlib.errors import InputError
from dynlib.papers import wae
from dynlib.papers.wae import TWO, VARIANTS, Config
from dynlib.papers.wae.split import psnr
from dynlib.papers.wae.training import WINDOW_PX, joint_loss, window

CPU = train.Hardware(accelerator="cpu")


@pytest.fixture(scope="module")
def batches():
    samples = load("scenes", "train", n=64, size_px=32)
    return Batches(samples, 16, mean=(0.0,) * 3, std=(1.0,) * 3)


def network(**settings):
    torch.manual_seed(0)
    return wae.convert(thin(ResNet(BasicBlock, [1, 1, 1, 1], 10), 1 / 4), Config(**settings))


def run(model, phase, batches, epochs=1):
    return train.fit(
        model,
        batches,
        phase.of(train.Schedule(epochs)),
        seed=0,
        objective=phase.objective,
        valid=batches,
        watch=phase.watch,
        groups=phase.groups and phase.groups(model),
        hardware=CPU,
    )


@pytest.fixture(scope="module")
def split(batches):
    """A network after its first stage, and the curve."""
    model = network()
    return model, run(model, wae.phases(Config())[0], batches, epochs=6)


def changed(model, before):
    return {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_stages_train_the_split_then_the_towers_then_everything(batches):
    model, stages = network(), wae.phases(Config())
    assert [stage.name for stage in stages] == ["split", "classifier", "joint"]
    towers = {"tower", "twin", "head_low", "head_fused"}
    for stage, expected in zip(stages, ({"split", "decoder"}, towers, {"split", "decoder", *towers}), strict=True):
        before = snapshot(model)
        run(model, stage, batches)
        assert changed(model, before) == expected
        statistics = {"norm_low.running_mean", "norm_high.running_var"}  # they fill up wherever a tower learns
        moved = {name for name in statistics if not torch.equal(model.state_dict()[name], before[name])}
        assert moved == (set() if stage.name == "split" else statistics)


def test_training_the_auto_encoder_raises_the_psnr(split):
    curve = split[1]
    assert curve[-1]["psnr"] > curve[0]["psnr"] + 3
    assert curve[-1]["loss"] < curve[0]["loss"] / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_through_its_phases_and_is_evaluated(variant, batches):
    model = network(variant=variant)
    for phase in wae.phases(Config(variant=variant)):
        assert all(math.isfinite(point["loss"]) for point in run(model, phase, batches))
    figures = wae.evaluate(model, batches)
    assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())
    assert ("psnr" in figures) == (variant in ("wae", "low"))
    assert ("top1_fused" in figures) == (variant in TWO)


def test_all_variants_have_the_same_epochs_and_rates_of_classification():
    for variant in VARIANTS:
        stages = [phase for phase in wae.phases(Config(variant=variant)) if phase.name != "split"]
        rates = [(stage.epochs, stage.lr, stage.optimizer) for stage in stages]
        assert rates == [(1.0, 1.0, "sgd"), (0.5, 0.001, "adam")]


def quieter(model, factor):
    """A copy whose I_H is `factor` times smaller and whose decoder takes it as much larger: I' is the same."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.split.high.parameters():
            parameter /= factor
        model.decoder.high.deconv.weight *= factor
    return model


def test_a_quieter_i_h_costs_nothing_and_has_less_energy(batches, split):
    before, after = (wae.watch_split(network, batches) for network in (split[0], quieter(split[0], 100)))
    assert after["energy_high"] == pytest.approx(before["energy_high"] / 100**2, rel=1e-4)
    same = ("psnr", "psnr_low_alone", "energy_low", "detail_high")
    assert {name: after[name] for name in same} == pytest.approx({name: before[name] for name in same}, rel=1e-4)


def test_a_window_is_one_square_of_all_images_and_moves():
    image = torch.arange(2 * 3 * 20 * 24).view(2, 3, 20, 24)
    torch.manual_seed(0)
    cuts = [window(image) for _ in range(4)]
    assert {cut.shape for cut in cuts} == {(2, 3, WINDOW_PX, WINDOW_PX)}
    assert len({cut[0, 0, 0, 0].item() for cut in cuts}) > 1
    assert torch.equal(cuts[0][1] - cuts[0][0], torch.full_like(cuts[0][0], 3 * 20 * 24))
    assert torch.equal(window(image[..., :8, :12]), image[..., :8, :12])


def test_the_joint_stage_keeps_what_a_quiet_i_h_carries(batches, split):
    model = quieter(split[0], 200)
    before = wae.watch_split(model, batches)
    joint, sgd = wae.phases(Config())[2], {"optimizer": "sgd", "lr": 0.01}
    with pytest.raises(InputError, match="the loss is"):
        run(copy.deepcopy(model), replace(joint, **sgd), batches, epochs=2)
    curve = run(model, joint, batches, epochs=2)
    assert curve[-1]["psnr"] > before["psnr"] - 0.5


def test_runs_that_differ_in_gamma_alone_share_the_first_two_stages():
    split, classifier, joint = wae.phases(Config())
    assert "gamma_share" not in {*split.depends_on, *classifier.depends_on} and joint.depends_on is None
    assert "lam" in split.depends_on


def test_gamma_is_settled_at_the_first_step_as_a_share_of_the_classification_loss():
    model, image, targets = network(), torch.rand(8, 3, 32, 32), torch.arange(8)
    loss = partial(joint_loss, lam=1.0, gamma_share=0.1)
    with torch.no_grad():
        first = loss(model, image, targets, 0.0)
        gamma = model.gamma.clone()
        scored = first / 1.1  # classification loss plus a tenth of it
        split = gamma.new_tensor(0.1) * scored / gamma
        output = model.eval()(image, restore=True)
        by_hand = (output.restored - image).square().mean() + output.image_high.square().mean()
        torch.testing.assert_close(split, by_hand)
        loss(model, image / 2, targets, 0.5)
    assert torch.equal(model.gamma, gamma)


def test_the_towers_rest_while_the_auto_encoder_learns_and_the_decoder_while_they_do():
    model, ran = network(), set()
    for name in ("split", "decoder", "tower", "twin", "head_low", "head_fused"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.add(name))
    stages, image = wae.phases(Config()), torch.rand(2, 3, 32, 32)
    for stage, expected in (
        (stages[0], {"split", "decoder"}),
        (stages[1], {"split", "tower", "twin", "head_low", "head_fused"}),
    ):
        ran.clear()
        stage.objective(model, image, torch.arange(2), 0.0)
        assert ran == expected


def test_the_figures_are_those_of_the_whole_set_whatever_the_batches(batches):
    model = network()
    run(model, wae.phases(Config())[0], batches)
    figures = [wae.watch_all(model, replace(batches, batch_size=size)) for size in (7, 64)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    with torch.no_grad():
        images = torch.cat([image for image, _ in batches.epoch(None)])
        output = model.eval()(images, restore=True)
        alone = model.decoder(output.image_low, 0 * output.image_high)
    expected = {
        "psnr": psnr((output.restored - images).square().mean().item()),
        "psnr_low_alone": psnr((alone - images).square().mean().item()),
        "energy_low": output.image_low.square().mean().item(),
        "energy_high": output.image_high.square().mean().item(),
        "variance_high": output.image_high.transpose(0, 1).flatten(1).var(1, correction=0).min().item(),
    }
    assert {name: figures[0][name] for name in expected} == pytest.approx(expected, rel=1e-4)
