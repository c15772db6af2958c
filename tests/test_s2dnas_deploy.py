"""Stage-wise networks: the same logits, really fewer operations, and images that keep their places."""

import json

import numpy as np
import pytest
import torch
from networks import MIXED, converted, images, network
from torch.utils.flop_counter import FlopCounterMode

from dynlib.errors import InputError
from dynlib.papers import s2dnas
from dynlib.papers.s2dnas import deploy
from dynlib.papers.s2dnas.split import split
from dynlib.runtime import confidence, load


@pytest.fixture(scope="module")
def model():
    return converted("s2dnas", network("pad"), cuts=MIXED.cuts, reuse=MIXED.reuse)


@pytest.fixture(scope="module")
def staged(model):
    return deploy(model, images(1), threads=1)


@pytest.mark.parametrize("exit", [0, 1, 2])
def test_what_runs_up_to_an_exit_is_its_closed_form_cost(model, exit):
    kept = {}
    with FlopCounterMode(display=False) as counter:
        for stage in split(model)[: exit + 1]:
            found = stage.network(*(kept.get(piece, images(1)) for piece in stage.inputs))
            kept |= dict(zip(stage.outputs, found[1:], strict=True))
    assert counter.get_total_flops() // 2 == list(s2dnas.macs_by_choice(model, 32).values())[exit]


def test_the_stages_hold_the_parameters_that_have_an_effect(model):
    held = sum(p.numel() for stage in split(model) for p in stage.network.parameters())
    assert held == s2dnas.cost(model, 32).params


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_real_exits_are_the_module_s_for_every_image_in_its_place(model, staged, count):
    x = images(count)
    expected, found = model(x), staged(x)
    assert torch.equal(found.taken, expected.taken)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    assert count < 40 or found.taken.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("choices", [[2, 0, 1, 0, 2, 1], [0, 0, 0, 0, 0, 2], [1, 1, 1, 1, 1, 1]])
def test_forced_exits_are_taken_and_later_ones_not_computed(model, staged, choices):
    x, choices = images(6), torch.tensor(choices)
    found, expected = staged(x, choices), model(x).exits
    assert torch.equal(found.taken, choices)
    torch.testing.assert_close(found.logits, expected[choices, torch.arange(6)], rtol=1e-5, atol=1e-5)
    computed = ~found.exits.isnan().any(-1)
    assert torch.equal(computed, torch.arange(3)[:, None] <= choices)


def test_few_leavers_are_carried_along(model, staged):
    x, choices = images(40), torch.full((40,), 2)
    choices[3] = 0  # fewer than a tenth
    found = staged(x, choices)
    assert found.taken[3] == 0 and not found.exits[:, 3].isnan().any()
    torch.testing.assert_close(found.logits[3], model(x).exits[0, 3], rtol=1e-5, atol=1e-5)


def test_a_confidence_of_exactly_the_threshold_leaves(staged):
    sure = confidence(staged(images(1), torch.tensor([2])).exits[0].numpy())
    at, above = (
        type(staged)(staged.about | {"thresholds": [float(t), 2.0]}, graphs(staged), "onnxruntime", 1)
        for t in (sure[0], np.nextafter(sure[0], np.float32(2)))
    )
    assert at(images(1)).taken.tolist() == [0] and above(images(1)).taken.tolist() == [2]
    twice = images(1).repeat(2, 1, 1, 1)
    assert at(twice).taken.tolist() == [0, 0] and above(twice).taken.tolist() == [2, 2]


def test_stages_in_int8_answer_nearly_as_in_float32_at_every_exit(model, staged):
    x, last = images(40), torch.full((40,), 2)
    found = deploy(model, x[:1], threads=1, calibrate=[x[:20], x[20:]])(x, last).exits
    for mine, right in zip(found, staged(x, last).exits, strict=True):
        assert 0 < (mine - right).abs().max() / right.abs().max() < 0.1


@pytest.mark.parametrize("wrong", [[0.5], [0.5, 0.6, 0.7], [0.5, float("nan")], [[0.5], [0.6]], ["a", "b"], 0.5, None])
def test_thresholds_changed_by_hand_must_be_one_for_each_exit_but_the_last(staged, tmp_path, wrong):
    file = staged.save(tmp_path) / "deployed.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"thresholds": [0, 0]}))
    assert load(tmp_path, threads=1)(images(2)).taken.tolist() == [0, 0]
    file.write_text(json.dumps(about | {"thresholds": wrong}))
    with pytest.raises(
        InputError, match=r"^thresholds are .*; allowed: a list of 2 numbers, one an exit but the last$"
    ):
        load(tmp_path, threads=1)


def graphs(deployed):
    return {name: part.graph for name, part in deployed.parts.items()}
