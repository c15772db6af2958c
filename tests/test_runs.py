"""A run goes through its method's phases, and runs that agree in the first ones share them."""

import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from dynlib import backbones, papers, train
from dynlib.book import recipes, runs
from dynlib.book.paperscale import STREAM, stream
from dynlib.cost import closed_form
from dynlib.errors import InputError
from dynlib.papers.octconv.ops import OctConv2d

RECIPE = recipes.Recipe("cifar_resnet8", "scenes", epochs=2, batch_size=16, width=4, train_images=32)


@dataclass(frozen=True)
class Config:
    shared: int = 0
    late: float = 1.0


@pytest.fixture
def paper(monkeypatch):
    """A method of two phases that remembers every step it takes."""
    steps = []

    def objective(name):
        def loss(network, images, targets, done):
            steps.append(name)
            return train.cross_entropy(network, images, targets, done)

        return loss

    def phases(config):
        first = train.Phase("first", objective("first"), epochs=0.5, depends_on=("shared",))
        return first, train.Phase("second", objective("second"), lr=config.late)

    offered = papers.Method(
        Config=Config,
        convert=lambda model, config: model,
        cost=closed_form,
        deploy=None,
        phases=phases,
        evaluate=lambda model, valid: {"images": len(valid.samples)},
        PIXELS="unit",
    )
    method = SimpleNamespace(**vars(offered), steps=steps)
    monkeypatch.setattr(runs, "method", lambda key: method)
    return method


def fit(config, folder=None, seed=0):
    return runs.fit("toy", config, RECIPE, profile="test", seed=seed, checkpoints=folder)[0]


def test_the_curve_names_the_phases_in_order_and_the_method_adds_its_metrics(paper):
    record = fit(Config())
    assert [(point["phase"], point["epoch"]) for point in record.curve] == [("first", 1), ("second", 1), ("second", 2)]
    assert record.metrics["images"] == record.dataset["test_images"]
    assert record.metrics["macs"] > 0 and 0 <= record.metrics["top1"] <= 1


def test_a_phase_may_see_the_images_as_they_are(paper, monkeypatch):
    seen, fit_ = [], train.fit
    monkeypatch.setattr(
        train, "fit", lambda model, batches, *a, **k: seen.append(batches.augment) or fit_(model, batches, *a, **k)
    )
    two = paper.phases(Config())
    paper.phases = lambda config: (replace(two[0], augment=False), two[1])
    fit(Config())
    assert seen[0] is None and seen[1] is not None


def test_runs_that_agree_in_the_first_phase_share_it_and_others_do_not(paper, tmp_path):
    once = fit(Config(), tmp_path)
    paper.steps.clear()
    shared = fit(Config(late=0.5), tmp_path)
    assert set(paper.steps) == {"second"}
    assert shared.curve[0] == once.curve[0]
    for other, seed in ((Config(shared=1), 0), (Config(), 1)):
        paper.steps.clear()
        fit(other, tmp_path, seed)
        assert set(paper.steps) == {"first", "second"}


def test_a_shared_phase_gives_the_numbers_of_one_that_was_trained(paper, tmp_path):
    fit(Config(late=0.5), tmp_path)
    shared, alone = fit(Config(), tmp_path), fit(Config())
    assert shared.metrics == alone.metrics


def test_the_time_of_a_run_has_the_epochs_that_a_checkpoint_had(paper, tmp_path, monkeypatch):
    once = fit(Config(), tmp_path)
    learn = train.fit
    slow = lambda *args, **kwargs: [point | {"seconds": 1000.0} for point in learn(*args, **kwargs)]  # noqa: E731
    monkeypatch.setattr(train, "fit", slow)
    again = fit(Config(), tmp_path)
    assert once.wall_s < 1000 and 3000 <= again.wall_s < 3100  # three epochs, none of which ran now


def test_a_phase_of_other_settings_trains_their_network_once_and_the_runs_own_is_converted_from_it(paper, tmp_path):
    seen, two = [], paper.phases(Config())

    def convert(model, config):
        seen.append((config, model.fc.weight.clone()))
        return copy.deepcopy(model)

    paper.convert = convert
    paper.phases = lambda config: (replace(two[0], settings=Config(shared=7)), two[1])
    first = fit(Config(), tmp_path)
    assert [config for config, _ in seen] == [Config(), Config(shared=7), Config()]
    start, same, trained = (weight for _, weight in seen)
    assert torch.equal(start, same) and not torch.equal(start, trained)
    paper.steps.clear()
    assert fit(Config(shared=1, late=0.5), tmp_path).curve[0] == first.curve[0] and set(paper.steps) == {"second"}
    assert torch.equal(seen[-1][1], trained)


def test_a_method_may_ask_for_pixels_from_0_to_1(paper, monkeypatch):
    seen = []
    monkeypatch.setattr(paper, "evaluate", lambda model, valid: seen.append((valid.mean, valid.std)) or {})
    fit(Config())
    assert seen == [((0.0,) * 3, (1.0,) * 3)]


def test_held_out_images_train_nothing_and_the_method_chooses_on_them(paper):
    recipe = replace(RECIPE, held_out_images=20)
    seen = {}

    def choose(model, held_out, valid):
        seen.update(held_out=held_out, valid=valid)
        return {"top1": 0.5}

    paper.choose = choose
    record = runs.fit("toy", Config(), recipe, profile="test", seed=0, checkpoints=None)[0]
    batches, valid = recipes.data("scenes", 16, 32, None, None, 20)
    assert len(seen["held_out"].samples) == 20 and seen["held_out"].augment is None
    assert seen["held_out"].mean == seen["valid"].mean and seen["valid"].samples.checksum == valid.samples.checksum
    trained = {image.numpy().tobytes() for image in batches.samples.images}
    assert len(trained) == 32 and not trained & {image.numpy().tobytes() for image in seen["held_out"].samples.images}
    assert record.metrics["top1"] == 0.5 and "images" not in record.metrics  # what is chosen is told instead
    assert record.config["recipe"]["held_out_images"] == 20
    assert "held_out_images" not in runs.describe(Config(), RECIPE)["recipe"]  # records from before keep their hash


def test_a_trained_network_starts_a_thinner_one_with_its_leading_channels():
    torch.manual_seed(0)
    wide = backbones.build("cifar_resnet20", 10, width=16)
    thin = recipes.narrowed(backbones.build("cifar_resnet20", 10, width=10), wide)
    assert torch.equal(thin.layer2[0].conv1.weight, wide.layer2[0].conv1.weight[:20, :10])
    assert torch.equal(thin.fc.bias, wide.fc.bias)
    with pytest.raises(InputError, match=r"width: conv1.weight of shape \[20, 3, 3, 3\] is no part of the trained"):
        recipes.narrowed(backbones.build("cifar_resnet20", 10, width=20), wide)


def test_what_was_trained_is_tested_as_it_is_deployed_too():
    recipe = replace(RECIPE, int8=True)
    metrics = runs.fit("octconv", papers.octconv.Config(), recipe, profile="test", seed=0, checkpoints=None)[0].metrics
    assert metrics["top1_deployed_float32"] == metrics["top1"]
    assert abs(metrics["top1_deployed_int8"] - metrics["top1"]) < 0.5


def test_a_recipe_puts_octaves_in_before_the_method_converts(paper):
    record, network = runs.fit("toy", Config(), replace(RECIPE, octaves=0.5), profile="test", seed=0, checkpoints=None)
    assert any(isinstance(layer, OctConv2d) for layer in network.modules())
    assert record.config["recipe"]["octaves"] == 0.5
    assert "octaves" not in runs.describe(Config(), RECIPE)["recipe"]  # records from before keep their hash
    with pytest.raises(InputError, match="octaves is 2; it is a finite number from 0 to 1"):
        replace(RECIPE, octaves=2)


def test_photographs_are_cropped_and_small_or_drawn_pictures_are_shifted():
    batches, valid = recipes.data("scenes", 16, 32, None, None)
    assert batches.augment.__name__ == "flip_and_shift" and valid.augment is None


@pytest.mark.parametrize("batch", [1, 3])
def test_every_round_of_a_stream_holds_the_choices_in_their_shares(batch):
    calls = stream((0.3, 0.25, 0.45), batch)
    assert [len(call) for call in calls] == [batch] * STREAM
    counts = sum(call.bincount(minlength=3) for call in calls)
    assert counts.tolist() == [6 * batch, 5 * batch, 9 * batch]


@pytest.mark.parametrize("shares, message", [((0.33, 0.67), "multiple of 0.05"), ((0.5, 0.45), "sum is 0.95, not 1")])
def test_shares_that_no_round_can_hold_are_refused(shares, message):
    with pytest.raises(InputError, match=message):
        stream(shares, 1)
