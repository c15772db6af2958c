"""Deployed dynamic resolution: the module's numbers, and one network for each image."""

import torch
from networks import converted, images, network

from dynlib import cost
from dynlib.papers import drnet, octconv
from dynlib.papers.drnet import Config, convert
from dynlib.runtime import Deployed


def assert_same(deployed, net, x):
    with torch.inference_mode():
        expected = net(x)
    found = deployed(x)
    assert torch.equal(found.choice, expected.choice) and len(found.choice) == len(x)
    for mine, theirs in ((found.logits, expected.logits), (found.z, expected.z)):
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_nothing_but_one_graph_is_left_of_a_single_candidate():
    plain = network()
    deployed = drnet.deploy(convert(plain, Config(candidates=(1,))), images(1))
    assert type(deployed) is Deployed and len(deployed.parts) == 1
    torch.testing.assert_close(deployed(images(2)), plain(images(2)), rtol=1e-4, atol=1e-5)


def test_a_supervised_predictor_chooses_by_utility_when_deployed_with_filtered_images_and_shared_statistics():
    settings = {"supervised": True, "antialias": True, "resolution_aware_bn": False, "candidates": (1, 0.5)}
    net, x = converted("drnet", network(), **settings), images(16)
    net.price.fill_(0.02)
    deployed = drnet.deploy(net, images(1), threads=1)
    with torch.inference_mode():
        expected = net(x)
    found = deployed(x)
    assert torch.equal(found.choice, expected.choice) and len(expected.choice.unique()) == 2
    assert (found.logits - expected.logits).abs().max() <= 1e-4 * expected.logits.abs().max()


def test_every_size_in_int8_answers_nearly_as_in_float32():
    net, x = converted("drnet", network(), candidates=(1, 0.5)), images(16)
    deployed = drnet.deploy(net, x[:1], threads=1, calibrate=[x[:8], x[8:]])
    with torch.inference_mode():
        for j in range(2):
            found, right = deployed(x, torch.full((16,), j)).logits, net(x, resolution=j).logits
            assert 0 < (found - right).abs().max() / right.abs().max() < 0.1


def test_octaves_inside_keep_their_logits_are_counted_and_deployed():
    octaves = octconv.convert(network(), octconv.Config(alpha=0.25))
    batch = images(6)
    with torch.inference_mode():
        before = octaves(batch)
        untouched = drnet.convert(octaves, Config(predictor_width=0.125)).eval()(batch, resolution=0).logits
        assert torch.equal(untouched, before)
    net = converted("drnet", octaves, candidates=(1, 0.5), predictor="inverted")
    assert torch.equal(octaves(batch), before), "the caller's network stays as it was"
    by_size = [cost.count(net.train(False), images(1, size)).macs - net.macs((size, size))[1] for size in (32, 16)]
    assert [net.macs((32, 32))[0][0], net.macs((16, 16))[0][0]] == by_size
    assert net.macs((32, 32))[0][0] == octconv.cost(octaves, (32, 32)).macs
    assert_same(drnet.deploy(net, images(1), threads=1), net, batch)
    net.train()(batch).logits.sum().backward()
    assert all(p.grad is not None for p in net.predictor.parameters())
