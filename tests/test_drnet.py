"""Dynamic resolution networks: what is converted, which batch norm serves, what is routed where, refusals."""

import pytest
import torch
import torch.nn.functional as F
from networks import converted, images, network, strange
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynlib.book.demos import drnet_known as known
from dynlib.errors import InputError
from dynlib.papers import drnet
from dynlib.papers.drnet import Config, convert
from dynlib.papers.drnet.layers import ResolutionNorm, candidate_sizes, resize

THIN = {"predictor_width": 1 / 8}
FAMILIES = ("projection", "basic", "grouped", "dense", "depthwise", "vgg", "gates in groups", "gated")


def norm_counts(net):
    """Batches that each set of each batch norm has seen, (norms, m)."""
    norms = [m for m in net.classifier.modules() if isinstance(m, ResolutionNorm)]
    return torch.tensor([[int(norm.num_batches_tracked) for norm in sets.sets] for sets in norms])


# ------------------------------------------------------------------------------------------------------- batch norms


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_itself_at_full_resolution_and_every_batch_norm_switches_with_it(family):
    plain = network(family)
    places = sum(isinstance(m, _BatchNorm) for m in plain.modules())
    net = convert(plain, Config(**THIN))
    torch.testing.assert_close(net(images(2, 64), resolution=0).logits, plain(images(2, 64)))
    net.train()(images(2, 64), resolution=1)
    assert norm_counts(net).tolist() == [[0, 1, 0]] * places
    net(images(2, 64), resolution=2)
    assert norm_counts(net).tolist() == [[0, 1, 1]] * places


def test_a_smaller_candidate_is_the_network_with_that_set_on_the_bilinear_image():
    net = strange(convert(network(), Config(**THIN)))
    plain = network()
    for name, norm in plain.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.load_state_dict(net.classifier.get_submodule(name).sets[2].state_dict())
    halved = F.interpolate(images(6), scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(images(6), resolution=2).logits, plain(halved))
    smooth = convert(network(), Config(antialias=True, **THIN))
    filtered = F.interpolate(images(6), (16, 16), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(smooth(images(6), resolution=2).logits, network()(filtered))


def test_convolutions_are_shared_and_without_resolution_aware_norms_all_is():
    plain = network()
    alone = sum(p.numel() for p in plain.parameters())
    norms = sum(p.numel() for m in plain.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    aware, shared = (convert(plain, Config(resolution_aware_bn=aware, **THIN)).classifier for aware in (True, False))
    assert sum(p.numel() for p in aware.parameters()) == alone + 2 * norms
    assert sum(p.numel() for p in shared.parameters()) == alone
    shared.train()(images(6), 2)
    assert {int(m.num_batches_tracked) for m in shared.modules() if isinstance(m, nn.BatchNorm2d)} == {1}


def test_one_image_alone_leaves_the_statistics_alone():
    net = convert(network(), Config(**THIN)).train()
    one = net.classify(images(1), 1)
    assert norm_counts(net).sum() == 0
    torch.testing.assert_close(one, net.eval().classify(images(1), 1))


# ------------------------------------------------------------------------------------------------------------ limits


def test_depthwise_networks_get_the_inverted_predictor_with_half_the_side():
    mobile, residual = (convert(network(name), Config(**THIN)) for name in ("depthwise", "basic"))
    assert mobile.sizes((224, 224))[1] == (64, 64) and residual.sizes((224, 224))[1] == (128, 128)
    forced = convert(network("depthwise"), Config(predictor="resnet10", predictor_side=0.25, **THIN))
    assert forced.sizes((64, 64))[1] == (16, 16)
    assert len(list(forced.predictor.parameters())) == len(list(residual.predictor.parameters()))


# ----------------------------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_bucketed_logits_are_those_of_one_image_after_the_other(size):
    batch = torch.randn(16, 3, *size, generator=torch.Generator().manual_seed(0))
    net = converted("drnet", network())
    together, alone = net(batch), [net(image[None]) for image in batch]
    assert len(together.choice.unique()) == 3
    assert together.choice.tolist() == [int(one.choice) for one in alone]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=1e-4, atol=1e-4)


def test_every_image_is_classified_exactly_once_at_inference():
    net, seen = converted("drnet", network()), []
    net.classifier.conv1.register_forward_hook(lambda m, args, out: seen.append(args[0].shape))
    choice = net(images(16)).choice
    assert sorted((side, n) for n, _, side, _ in seen) == [
        (side, int((choice == j).sum())) for side, j in ((16, 2), (24, 1), (32, 0))
    ]


@pytest.mark.parametrize("routed", [False, True])
def test_images_stay_channels_last_at_every_resolution(routed):
    net, layouts = converted("drnet", network(), routed=routed), []
    net.macs((32, 32))  # counted once; it runs the layers too
    for conv in (net.classifier.conv1, net.predictor[0]):
        conv.register_forward_hook(
            lambda m, args, out: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
    for mode in (True, False):
        net.train(mode)(images(16).to(memory_format=torch.channels_last))
    assert layouts == [True] * len(layouts) and len(layouts) >= 8


def test_an_empty_batch_has_no_logits():
    net = convert(network(), Config(**THIN))
    assert net(images(0)).logits.shape == (0, 10)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("size", "candidates", "expected"),
    [
        ((224, 224), (1, 6 / 7, 0.75, 0.5, 3 / 7), [224, 192, 168, 112, 96]),
        ((224, 224), (1, 0.857143, 0.428571), [224, 192, 96]),
        ((128, 128), (1, 0.75, 0.5), [128, 96, 64]),
        ((64, 64), (1, 0.75, 0.5), [64, 48, 32]),
    ],
)
def test_candidates_come_out_in_whole_pixels(size, candidates, expected):
    assert candidate_sizes(size, candidates) == [(side, side) for side in expected]


@pytest.mark.parametrize("resolution", [-1, 3])
def test_a_candidate_that_is_not_there_is_refused(resolution):
    with pytest.raises(InputError, match=f"resolution is {resolution}; allowed: 0 to 2"):
        convert(network(), Config(**THIN))(images(6), resolution=resolution)


@pytest.mark.parametrize(("size", "words"), [((66, 64), "candidate 0.75 of an image of 66x64 px is 49.5 px")])
def test_an_image_whose_candidates_are_no_whole_pixels_is_refused(size, words):
    net = convert(network(), Config(**THIN))
    with pytest.raises(InputError, match=words):
        net(torch.zeros(1, 3, *size))
    with pytest.raises(InputError, match=words):
        drnet.macs_by_choice(net, size)


# ----------------------------------------------------------------------------------------------------------- stripes


def test_fine_stripes_are_gone_at_half_the_side_and_coarse_ones_are_not():
    samples, fine = known.stripes(64, seed=3)
    assert samples.labels.bincount().tolist() == [32, 32] and fine.sum() == 32
    assert samples.labels[fine].bincount().tolist() == [16, 16]  # the kind does not give the class away
    half = resize(samples.images.float(), (16, 16), antialias=False).mean(1)
    across, down = half.mean(2).std(1), half.mean(1).std(1)  # contrast between rows, and between columns
    assert (across - down)[fine].abs().max() < 8 < 30 < (across - down)[~fine].abs().min()
