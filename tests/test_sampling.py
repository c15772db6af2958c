"""Sampled networks: the published counts, every host, training, and refusals."""

import pytest
import torch
from networks import images, network, on_meta, scored, small_detector, small_segmenter

from dynlib import cost as counting
from dynlib.backbones import hosts
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.book.paperscale import cost_of
from dynlib.data import Batches, load
from dynlib.errors import InputError
from dynlib.papers import sampling
from dynlib.papers.sampling import Config, convert
from dynlib.papers.sampling.block import BLOCKS, sampled_blocks
from dynlib.papers.sampling.masks import observed, samplers, set_seed
from dynlib.papers.sampling.released import nominal_size, released_macs
from dynlib.papers.sampling.training import RAMP, SCORE_RATE, groups, objective
from dynlib.train import Schedule, fit

# --------------------------------------------------------------------------------------------------------------- counts


def test_without_deformable_convolutions_the_released_count_is_the_network_itself():
    counted = counting.count(on_meta("resnet50"), counting.example(224).to("meta")).macs
    assert released_macs("resnet50", (224, 224), deformable=False) == counted - 1000 * 2048


def test_the_expected_macs_of_a_converted_resnet50_are_the_released_formula():
    net = convert(on_meta("resnet50"), Config())
    choices = sampling.macs_by_choice(net, nominal_size(1000))
    for density, macs in choices.items():
        theirs = released_macs("resnet50", nominal_size(1000), float(density), deformable=False)
        assert macs - 1000 * 2048 == round(theirs)


def test_expected_macs_follow_the_density_of_each_mask():
    net = convert(network("bottleneck"), Config()).to("meta")
    density = dict.fromkeys(samplers(net), 0.5)
    even = sampling.expected(net, 64, 0.5)
    assert sampling.expected(net, 64, density) == even
    first = next(iter(density))
    changed = sampling.expected(net, 64, density | {first: 0.25})
    assert {name for name in even if even[name] != changed[name]} == {"layer1.0.conv1", "layer1.0.fillers.conv1"}


def test_the_command_line_has_the_macs_of_every_choice():
    answer = cost_of("sampling", Config(), "cifar_resnet20", (64, 64))
    choices = answer["macs_by_choice"]
    assert list(choices) == ["0.1", "0.25", "0.5", "1.0"] and sorted(choices.values()) == list(choices.values())
    assert answer["macs"] > choices["1.0"] > answer["macs_static"] > choices["0.5"] and "macs_expected" not in answer


def test_a_given_density_has_expected_macs_with_the_grid_or_without():
    nets = [
        convert(network("bottleneck"), Config(density=0.25, grid=interval)).to("meta") for interval in (None, 11, 1)
    ]
    even, some, full = (sampling.macs_expected(net, 64) for net in nets)
    choices = sampling.macs_by_choice(nets[0], 64)
    assert even == choices["0.25"] < some < full == choices["1.0"]
    assert sampling.macs_expected(convert(network("bottleneck"), Config()), 64) is None


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("masks", "interpolation"),
    [(1, "rbf"), (1, "reuse"), (2, "convolution"), (2, "zeros"), (3, "average"), (3, "reuse")],
)
def test_masks_that_sample_everything_give_the_original_output(masks, interpolation):
    plain, x = network("bottleneck"), images(2, 64)
    net = convert(plain, Config(masks=masks, interpolation=interpolation, bias=100.0))
    torch.testing.assert_close(net(x), plain(x), rtol=1e-4, atol=1e-4)


def test_uniform_sampling_is_the_network_on_a_smaller_image():
    plain, x = network("bottleneck"), images(2, 64)
    small = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
    assert torch.equal(convert(plain, Config(sampling="uniform", density=0.25))(x), plain(small))


def test_a_network_on_a_smaller_image_runs_in_bfloat16_too():
    net, x = convert(network("bottleneck"), Config(sampling="uniform", density=0.25)), images(2, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(x.bfloat16()).float(), net(x).float(), rtol=0.1, atol=0.1)


# ---------------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(("arch", "blocks"), [("resnet18", 8), ("resnext50_32x4d", 16), ("cifar_resnet20", 9)])
def test_every_block_is_replaced(arch, blocks):
    net = convert(on_meta(arch), Config())
    assert not any(isinstance(part, BLOCKS) for part in net.modules())
    assert len(sampled_blocks(net)) == blocks and len(samplers(net)) == 2 * blocks
    assert net(torch.empty(1, 3, 64, 64, device="meta")).shape[0] == 1


def test_a_detector_with_a_feature_pyramid_trains_on_its_own_losses_and_detects():
    net = scored(convert(small_detector(), Config()).train())
    boxes = [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}]
    with observed(net) as samples:
        losses = net([torch.rand(3, 64, 64)], boxes)
    assert len(samples) == 8
    sum(losses.values()).backward()
    assert all(s.score.weight.grad.abs().sum() > 0 for s in samplers(net).values())
    with torch.no_grad():
        assert set(net.eval()([torch.rand(3, 64, 64)])[0]) == {"boxes", "labels", "scores"}


def test_a_dilated_segmentation_network_trains_and_masks_have_the_size_of_its_maps():
    net = convert(small_segmenter(), Config()).train()
    with observed(net) as samples:
        out = net(images(2))["out"]
    assert out.shape == (2, 4, 32, 32)
    assert samples["backbone.layer4.0.samplers.1"].mask.shape == (2, 1, 4, 4)
    out.mean().backward()


# ------------------------------------------------------------------------------------------------------------- training


def test_the_same_seed_gives_the_same_output_and_another_seed_another():
    net, x = scored(convert(network("bottleneck"), Config(seed=4))), images(2, 64)
    with torch.no_grad():
        first = net(x)
        assert torch.equal(net(x), first)
        set_seed(net, 5)
        assert not torch.equal(net(x), first)


def test_an_image_has_the_same_masks_alone_and_in_a_batch():
    net, x = scored(convert(network("bottleneck"), Config())), images(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x[:1]), net(x)[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["stochastic", "deterministic"])
@pytest.mark.parametrize("masks", [1, 2, 3])
def test_gradients_reach_every_parameter_through_soft_masks(kind, masks):
    config = Config(sampling=kind, masks=masks, sigma=1.0)
    net = scored(convert(network("bottleneck"), config).train())
    loss = objective(config.gamma, config.tau)(net, images(2, 64), torch.tensor([0, 1]), 0.5)
    loss.backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == [] and all(s.tau == pytest.approx(0.03**0.5) for s in samplers(net).values())


def scenes(split, n):
    return Batches(load("scenes", split, n=n, size_px=32, seed=0), 8)


def test_training_lowers_the_density_and_held_out_figures_name_it():
    config = Config(gamma=20.0)
    net = convert(CifarResNet(8, 10, width=8), config)
    _, phase = sampling.phases(config)
    valid = scenes("val", 16)
    before = phase.watch(net, valid)
    fit(net, scenes("train", 64), Schedule(2, lr=0.05), seed=0, objective=phase.objective)
    after = phase.watch(net, valid)
    assert before["density"] == pytest.approx(0.953, abs=0.02) and after["density"] < before["density"] - 0.1
    assert before["undecided"] == 0 and after["undecided"] > 0
    assert 0 <= after["top1"] <= 1


def test_the_price_rises_over_the_first_part_of_the_schedule():
    net, targets = convert(network("bottleneck"), Config(sampling="deterministic")), torch.tensor([0, 1])
    prices = []
    for done in (0.0, RAMP / 2, RAMP, 0.9):
        with torch.no_grad():
            priced, free = (objective(gamma, 0.03)(net.train(), images(2, 64), targets, done) for gamma in (5.0, 0.0))
        prices.append((priced - free).item())
    full = 5.0 * torch.sigmoid(torch.tensor(3.0)).item()
    assert prices == pytest.approx([0, full / 2, full, full], rel=1e-3, abs=1e-4)


def test_every_row_starts_from_the_dense_network_whatever_its_settings():
    kinds = ({}, {"sampling": "uniform", "density": 0.5}, {"masks": 1, "interpolation": "reuse"}, {"density": 1.0})
    rows = [sampling.phases(Config(**settings)) for settings in kinds]
    assert {dense.settings for dense, _ in rows} == {Config(density=1.0)}
    assert all(dense.epochs + own.epochs == pytest.approx(1) and own.settings is None for dense, own in rows)
    trained = convert(network("bottleneck"), rows[0][0].settings)
    for settings in kinds:
        state = convert(trained, Config(**settings)).state_dict()
        assert all(torch.equal(state[name], value) for name, value in trained.state_dict().items())


def test_every_parameter_is_trained_and_the_scores_slower():
    net = convert(network("bottleneck"), Config())
    (rest, fast), (scores, slow) = groups(net)
    assert (fast, slow) == (1.0, SCORE_RATE) and len(scores) == 2 * len(samplers(net))
    assert {id(p) for p in (*rest, *scores)} == {id(p) for p in net.parameters()}
    assert len(rest) + len(scores) == len(list(net.parameters()))
    assert [factor for _, factor in groups(network("bottleneck"))] == [1.0]


def test_evaluation_lists_seeds_densities_and_expected_macs():
    net, valid = scored(convert(CifarResNet(8, 10, width=8), Config(density=0.1, grid=None))), scenes("val", 16)
    found = sampling.evaluate(net, valid)
    assert len(found["top1_by_seed"]) == 3 and len(found["density_by_mask"]) == 6
    assert all(abs(d - 0.1) < 0.05 for d in found["density_by_mask"]) and 0 < found["empty_windows"] < 0.3
    few = convert(CifarResNet(8, 10, width=8), Config(density=0.1, grid=None, window=3, interpolation="average"))
    assert sampling.evaluate(scored(few), valid)["empty_windows"] > 0.3 > found["empty_windows"]
    assert found["macs_expected"] == pytest.approx(sum(sampling.expected(net, 32, 0.1).values()), rel=0.1)
    assert {s.seed for s in samplers(net).values()} == {0}
    assert len(found["undecided_by_mask"]) == 6 and found["undecided"] == 1  # all of 0.1
    assert found["sigma_by_mask"] == [3.0] * 6
    assert found["macs_backbone"] == found["macs_expected"] - 32 * 10  # the last layer
    plain = CifarResNet(8, 10, width=8)
    assert sampling.evaluate(plain, valid) == {"macs_backbone": sampling.cost(plain, 32).macs - 32 * 10}


@pytest.mark.parametrize("kind", ["segmenter", "detector"])
def test_the_backbone_is_stem_and_stages_without_pyramid_and_head(kind):
    net = getattr(hosts, kind)("resnet50", 3, 8)
    part, size = (net, (64, 64)) if kind == "segmenter" else (net.backbone, (64, 64))
    counted = sampling.cost(part, size).by_layer
    inside = "backbone." if kind == "segmenter" else "body."
    of_backbone = sum(macs for name, macs in counted.items() if name.startswith(inside))
    assert 0 < sampling.macs_backbone(counted) == of_backbone < sum(counted.values())


# ------------------------------------------------------------------------------------------------------------- refusals


def test_uniform_sampling_needs_a_stem():
    with pytest.raises(InputError, match="Stage has no stem; uniform sampling needs one"):
        convert(on_meta("resnet50_stage1"), Config(sampling="uniform", density=0.5))


def test_a_basic_block_with_three_masks_is_refused():
    with pytest.raises(InputError, match="masks is 3; a basic block"):
        convert(network("basic"), Config(masks=3))


def test_uniform_sampling_of_a_detector_takes_densities_whose_scale_its_pooling_keeps():
    with pytest.raises(InputError, match="for a detector uniform sampling takes 1/4, 1/16"):
        convert(small_detector(), Config(sampling="uniform", density=0.5))
    plain, image = small_detector().eval(), torch.rand(3, 128, 128)
    with torch.no_grad():
        plain([image])  # as after a dense training: its pooling keeps the scales that it found
        net = convert(plain, Config(sampling="uniform", density=0.25)).eval()
        net([image])
        first = net.backbone(image[None])["0"]
    assert net.roi_heads.box_roi_pool.scales[0] == first.shape[-1] / 128 < plain.roi_heads.box_roi_pool.scales[0]
