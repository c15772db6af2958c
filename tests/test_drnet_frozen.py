"""A classifier that is given: answers computed once, statistics of its own a size, a predictor that learns alone."""

from dataclasses import replace

import pytest
import torch

from dynlib import train
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.data import Batches, load
from dynlib.errors import InputError
from dynlib.papers import drnet
from dynlib.papers.drnet import Config, frozen, policies, training
from dynlib.papers.drnet.layers import ResolutionNorm
from dynlib.train import Hardware, Schedule

SETTINGS = {"frozen": True, "predictor_width": 1 / 8, "predictor_side": 0.5}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "RUNS", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def scenes():
    batches = Batches(load("scenes", "train", n=60, size_px=32), 20)
    return batches, replace(batches, samples=load("scenes", "val", n=40, size_px=32))


def small(**settings):
    torch.manual_seed(0)
    return drnet.convert(CifarResNet(8, width=8), Config(**SETTINGS, **settings)).eval()


def statistics(model, j):
    norms = [m for m in model.classifier.modules() if isinstance(m, ResolutionNorm)]
    return torch.cat([norm.at(j).running_mean for norm in norms]).clone()


def test_answers_are_what_the_classifier_says_and_are_computed_once(scenes, runs, monkeypatch):
    model, (batches, _) = small(), scenes
    told = frozen.answers(model, batches)
    images = torch.cat([images for images, _ in batches.epoch(None)])
    for j in range(3):
        torch.testing.assert_close(told[j].float(), model.classify(images, j), rtol=2e-3, atol=2e-3)
    monkeypatch.setattr(type(model), "classify", None)
    assert torch.equal(frozen.answers(model, batches), told)
    monkeypatch.undo()
    monkeypatch.setattr(frozen, "RUNS", runs)
    with torch.no_grad():
        model.classifier.get_parameter("fc.bias").add_(1)
    torch.testing.assert_close(frozen.answers(model, batches).float(), told.float() + 1, rtol=5e-3, atol=5e-3)


def test_smaller_sizes_get_statistics_of_their_own_and_full_size_keeps_its(scenes):
    model, (batches, _) = small(), scenes
    before = [statistics(model, j) for j in range(3)]
    frozen.settle(model, batches)
    assert torch.equal(statistics(model, 0), before[0])
    assert not torch.equal(statistics(model, 1), before[1])
    assert not torch.equal(statistics(model, 1), statistics(model, 2))
    stem = next(m for m in model.classifier.modules() if isinstance(m, ResolutionNorm))
    images = torch.cat([images for images, _ in batches.epoch(None)])
    small_images = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear")
    mean = model.classifier.get_submodule("conv1")(small_images).mean((0, 2, 3))
    torch.testing.assert_close(stem.at(2).running_mean, mean, rtol=1e-4, atol=1e-5)
    assert not any(m.training for m in model.modules()) and stem.at(2).momentum == 0.1


@pytest.mark.parametrize("supervised", [False, True])
def test_the_predictor_learns_and_the_classifier_does_not(scenes, supervised):
    model, (batches, valid) = small(supervised=supervised), scenes
    (phase,) = drnet.phases(model.config)
    seen = phase.prepare(model, batches)
    assert seen.samples.images.shape[2:] == (16, 16)
    classifier = {name: value.clone() for name, value in model.classifier.state_dict().items()}
    predictor = {name: value.clone() for name, value in model.predictor.state_dict().items()}
    train.fit(
        model,
        seen,
        phase.of(Schedule(2, 0.05)),
        seed=0,
        objective=phase.objective,
        groups=phase.groups(model),
        hardware=Hardware("cpu"),
    )
    trained = {"classifier": classifier, "predictor": predictor}
    for name, before in trained.items():
        after = getattr(model, name).state_dict()
        changed = any(not torch.equal(after[key], value) for key, value in before.items() if "running" not in key)
        assert changed == (name == "predictor")
    found = drnet.evaluate(model, valid)
    assert {"fixed", "class", "oracle"} <= found["rules"].keys() and ("priced" in found["rules"]) == supervised
    assert max(point["top1"] for point in found["rules"]["oracle"]) == pytest.approx(found["sufficient_top1"])


def test_the_gate_s_loss_on_the_table_is_the_joint_objective_of_a_classifier_in_evaluation_mode(scenes):
    model, (batches, _) = small(), scenes
    (phase,) = drnet.phases(model.config)
    seen = phase.prepare(model, batches)
    thumbnails, places = next(iter(seen.epoch(None)))
    images, labels = next(iter(batches.epoch(None)))
    model.training = True  # the gate draws; every layer stays in evaluation mode
    torch.manual_seed(3)
    asked = training.joint(model.config.alpha, model.config.eta, model.config.tau, None)(model, images, labels, 0.0)
    torch.manual_seed(3)
    found = phase.objective(model, thumbnails, places, 0.0)
    torch.testing.assert_close(found, asked, rtol=2e-3, atol=2e-3)


def test_what_the_table_says_of_a_test_image_is_what_collecting_anew_says(scenes):
    model, (_, valid) = small(), scenes
    slow = policies.collect(model, valid)
    found = policies.collect(model, valid, frozen.answers(model, valid).float())
    assert torch.equal(found.right, slow.right) and torch.equal(found.labels, slow.labels)
    torch.testing.assert_close(found.z, slow.z)
    assert (found.macs, found.sizes, found.predictor_macs) == (slow.macs, slow.sizes, slow.predictor_macs)


def test_knowing_more_never_buys_less():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    logits = torch.randn(3, 400, 4, generator=generator)
    logits[torch.arange(3)[:, None], torch.arange(400), labels] += torch.tensor([2.0, 1.5, 0.5])[:, None]
    found = policies.Evidence(logits, torch.zeros(400, 3), labels, ((4, 4), (3, 3), (2, 2)), (100, 50, 25), 1)
    curves = frozen.ladder(found, frozen._right_by_class(logits, labels), None)
    best = {name: max(point["top1"] for point in curve) for name, curve in curves.items()}
    assert best["fixed"] <= best["class"] <= best["oracle"] == found.right.any(0).double().mean().item()
    for curve in curves.values():
        assert [point["macs"] for point in curve] == sorted(point["macs"] for point in curve)


def test_there_must_be_a_choice_to_learn():
    with pytest.raises(InputError, match="frozen is true, but there is no predictor to train"):
        Config(frozen=True, candidates=(1.0,))
    with pytest.raises(InputError, match="frozen is true"):
        Config(frozen=True, joint=False)
