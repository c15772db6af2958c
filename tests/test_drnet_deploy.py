"""Deployed dynamic resolution: the module's numbers, and one network for each image."""

import pytest
import torch
from networks import converted, images, network

from dynlib.papers import drnet
from dynlib.papers.drnet import Config, convert
from dynlib.runtime import Deployed


@pytest.fixture(scope="module")
def deployed():
    """Of the network `converted("drnet", network())`."""
    return drnet.deploy(converted("drnet", network()), images(1), threads=1)


def test_forced_choices_are_taken_and_the_predictor_runs_all_the_same(deployed):
    net, batch, forced = converted("drnet", network()), images(6), torch.tensor([2, 0, 1, 1, 2, 0])
    found = deployed(batch, choices=forced)
    assert torch.equal(found.choice, forced) and torch.equal(found.z, deployed(batch).z)
    with torch.inference_mode():
        each = torch.stack([net(batch, resolution=j).logits for j in range(3)])
    torch.testing.assert_close(found.logits, each[forced, torch.arange(6)], rtol=1e-4, atol=1e-5)


def test_nothing_but_one_graph_is_left_of_a_single_candidate():
    plain = network()
    deployed = drnet.deploy(convert(plain, Config(candidates=(1,))), images(1))
    assert type(deployed) is Deployed and len(deployed.parts) == 1
    torch.testing.assert_close(deployed(images(2)), plain(images(2)), rtol=1e-4, atol=1e-5)


def test_a_supervised_predictor_chooses_by_utility_when_deployed():
    net = converted("drnet", network(), supervised=True)
    net.price.fill_(0.02)
    deployed, x = drnet.deploy(net, images(1)), images(16)
    with torch.inference_mode():
        expected = net(x)
    found = deployed(x)
    assert torch.equal(found.choice, expected.choice) and len(set(expected.choice.tolist())) > 1
    assert (found.logits - expected.logits).abs().max() <= 1e-4 * expected.logits.abs().max()
