"""The wrapped networks: what they cost, what they yield, what they refuse, and how they deploy."""

from functools import cache

import onnx
import pytest
import torch
import torch.nn.functional as F
from networks import images, network, strange
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from dynlib import backbones
from dynlib.backbones.thin import thin
from dynlib.cost import count
from dynlib.errors import InputError
from dynlib.export import difference
from dynlib.papers import wae
from dynlib.papers.wae import TWO, VARIANTS, Config, convert


def small():
    torch.manual_seed(0)
    return thin(ResNet(BasicBlock, [1, 1, 1, 1], 5), 1 / 4)


@cache
def vgg():
    torch.manual_seed(0)
    return backbones.build("vgg11", 5, width=8, init_weights=False)


# --------------------------------------------------------------------------------------------------------------- cost


def counted(arch, size=224, **settings):
    with torch.device("meta"):
        network = backbones.build(arch)
        model = convert(network, Config(**settings))
        image = torch.empty(1, 3, size, size)
    macs = count(model, image).macs
    assert wae.cost(model, size).macs == macs
    return network, model, macs, count(network, image).macs


def giga(macs):
    return round(macs / 1e9, 4)


def test_vgg16_costs_what_the_released_file_and_the_specification_say():
    network, model, macs, static = counted("vgg16")
    assert (giga(macs), round(static / 1e9, 3), round(static / macs, 2)) == (4.3819, 15.47, 3.53)
    parts = {part: giga(value) for part, value in wae.macs_by_part(model, 224).items()}
    assert parts == {"split": 0.2637, "tower": 3.8367, "head_low": 0.0105, "twin": 0.2439, "head_fused": 0.0272}
    convs = [wae.conv_macs(net, size) for net, size in ((network, 224), (model.tower, 112), (model.twin, 112))]
    assert [giga(value) for value in convs] == [15.3466, 3.8367, 0.2439]
    assert round(convs[0] / sum(convs[1:]), 2) == round(wae.printed_speedup(), 2) == 3.76
    without_decoder = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("decoder"))
    assert round(without_decoder / 1e6, 1) == 53.3


@pytest.mark.parametrize(
    ("variant", "total"),
    [
        ("decomposition", 4.3819),
        ("low", 4.3819 - 0.2439 - 0.0272 - 0.0054),  # no twin, no fusion head, no convolution for I_H
        ("wavelet", 3.8367 + 0.2547 + 0.0105 + 0.0272 + 0.0028),
        ("approximation", 3.8911 + 0.0010),
        ("downscaled", 3.8911),
        ("full", 15.4703),
    ],
)
def test_the_baselines_of_vgg16_cost_what_their_parts_do(variant, total):
    assert counted("vgg16", variant=variant)[2] / 1e9 == pytest.approx(total, abs=1.5e-4)


def test_the_released_heads_flatten_the_released_maps():
    with torch.device("meta"):
        model = convert(backbones.build("vgg16"), Config())
    widths = [
        [layer.in_features for layer in head.modules() if isinstance(layer, nn.Linear)]
        for head in (model.head_low, model.head_fused)
    ]
    assert widths == [[8192, 1024, 1024], [10240, 2048, 2048]]
    half = torch.empty(1, 3, 112, 112, device="meta")
    assert model.tower(half).shape == (1, 512, 4, 4) and model.twin(half).shape == (1, 128, 4, 4)
    assert [layer.p for layer in model.head_low.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_wide_heads_have_the_network_s_own_hidden_layers():
    model = convert(vgg(), Config(heads="wide"))
    assert [m.out_features for m in model.head_fused.modules() if isinstance(m, nn.Linear)] == [512, 512, 5]


# --------------------------------------------------------------------------------------------------------------- wrap


@pytest.mark.parametrize(
    ("arch", "width", "size"),
    [
        ("resnet18", 16, 224),
        ("resnet50", 16, 64),
        ("vgg16_bn", 8, 96),
        ("mobilenet_v2", 8, 64),
        ("densenet121", 16, 64),
        ("resnext50_32x4d", 16, 64),
        ("alexnet", 16, 128),
    ],
)
def test_any_classifier_is_wrapped_and_the_gradient_reaches_every_parameter(arch, width, size):
    torch.manual_seed(0)
    options = {"init_weights": False} if arch == "vgg16_bn" else {}
    model = convert(backbones.build(arch, 5, width=width, **options), Config())
    image = images(2, size)
    output = model(image, restore=True)
    assert output.logits.shape == output.low.shape == output.fused.shape == (2, 5)
    assert output.image_low.shape == output.image_high.shape == (2, 3, size // 2, size // 2)
    assert output.restored.shape == image.shape
    (F.cross_entropy(output.logits, torch.arange(2)) + F.mse_loss(output.restored, image)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


UNUSUAL = ("scored map", "channels last", "windows", "windows, second form")


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_network_without_batch_norms_or_linear_layers_is_taken_apart_and_says_what_it_said(name):
    plain = network(name)
    whole = convert(plain, Config(variant="downscaled")).network
    with torch.no_grad():
        torch.testing.assert_close(whole(images(2, 64)), plain(images(2, 64)), rtol=0, atol=0)


@pytest.mark.parametrize("name", UNUSUAL)
def test_its_twin_has_the_same_form_and_learns(name):
    model = convert(network(name).train(), Config())
    output = model(images(2, 64))
    F.cross_entropy(output.logits, torch.arange(2)).backward()
    left = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert [name for name in left if not name.startswith("decoder.")] == []
    kinds = [[type(layer) for layer in part.modules()][1:] for part in (model.tower, model.twin)]
    assert kinds[0] == kinds[1]
    scale = [p.flatten().tolist() for name, p in model.twin.named_parameters() if name.endswith("layer_scale")]
    assert all(values == [0.5] * 8 for values in scale)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_yields_one_type_in_training_and_in_evaluation(variant):
    model = convert(small(), Config(variant=variant))
    outputs = [net(images(2, 64)) for net in (model.train(), model.eval())]
    assert type(outputs[0]) is type(outputs[1])
    for output in outputs:
        assert getattr(output, "logits", output).shape == (2, 5)
    if variant in TWO:
        assert torch.equal(outputs[1].logits, outputs[1].low + outputs[1].fused)
        assert outputs[1].image_high.shape[1] == (9 if variant == "wavelet" else 3)
    if variant in (*TWO, "low"):
        assert outputs[1].restored is None


def test_the_parts_make_the_scores_and_each_sub_image_meets_its_own_tower():
    model = strange(convert(small(), Config()))
    with torch.no_grad():
        output = model(images(2, 64), restore=True)
        low = model.norm_low.eval()(output.image_low)
        by_hand = (output.image_low - model.norm_low.running_mean[:, None, None]) / (
            model.norm_low.running_var[:, None, None] + 1e-5 / 255**2
        ).sqrt()
        torch.testing.assert_close(low, by_hand)
        maps = [model.tower(low), model.twin(model.norm_high(output.image_high))]
        torch.testing.assert_close(output.low, model.head_low(maps[0]))
        torch.testing.assert_close(output.fused, model.head_fused(torch.cat(maps, 1)))
        both = model.decoder.low(output.image_low) + model.decoder.high(output.image_high)
        torch.testing.assert_close(output.restored, both)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_faint_i_h_meets_the_twin_at_full_strength_as_in_the_paper_s_pixels(precision):
    model = convert(small(), Config()).train()
    seen = {}
    model.twin.register_forward_pre_hook(lambda _, args: seen.update(high=args[0].float()))
    faint = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2e-5**0.5
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        model.scores(images(4, 32), faint if precision is None else faint.to(precision))
    as_printed = nn.BatchNorm2d(3, affine=False)(255 * faint)  # Caffe's batch norm and epsilon, on pixels 0 .. 255
    torch.testing.assert_close(
        seen["high"], as_printed, rtol=1e-2 if precision else 1e-4, atol=1e-2 if precision else 1e-4
    )
    assert seen["high"].var().item() == pytest.approx(1, abs=0.01)


def test_the_low_head_keeps_the_weights_of_a_layer_whose_size_has_not_changed():
    network = small()
    assert torch.equal(convert(network, Config()).head_low.layers.fc.weight, network.fc.weight)


def test_one_seed_gives_one_auto_encoder_whatever_is_behind_it():
    found = []
    for variant in ("wae", "low"):
        torch.manual_seed(3)
        found.append(convert(small(), Config(variant=variant)))
    for part in ("split", "decoder"):
        pairs = zip(*(model.get_submodule(part).parameters() for model in found), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "full"])
def test_odd_sides_are_refused_or_padded(variant):
    odd = images(2, 64)[..., :63, :]
    with pytest.raises(InputError, match="size 63x64: both sides must be even"):
        convert(small(), Config(variant=variant))(odd)
    padded = convert(small(), Config(variant=variant, sizes="pad"))
    restore = {"restore": True} if hasattr(padded, "decoder") and padded.decoder is not None else {}
    output = padded(odd, **restore)
    if restore:
        assert output.restored.shape == odd.shape


# ------------------------------------------------------------------------------------------------------------- deploy


def test_vgg_deploys_with_a_faint_i_h_and_no_decoder_travels_along():
    model = strange(convert(vgg(), Config()))
    model.norm_high.running_var.fill_(2e-5)
    model.norm_high.running_mean.fill_(1e-3)
    deployed = wae.deploy(model, images(1, 64))
    with torch.no_grad():
        expected, found = model(images(2, 64)), deployed(images(2, 64))
    for name in ("low", "fused", "logits"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert "decoder" not in str(onnx.load_from_string(deployed.parts["network"].graph).graph)


def test_deploying_refuses_the_odd_sides_that_the_module_refuses():
    with pytest.raises(InputError, match="size 63x64"):
        wae.deploy(convert(small(), Config()).eval(), images(1, 64)[..., :63, :])


@pytest.mark.parametrize("size", [64, 65])
def test_the_reduced_picture_is_the_same_on_either_engine(size):
    net, x = convert(small(), Config(variant="downscaled", sizes="pad")).eval(), images(2, size)
    deployed = wae.deploy(net, x, threads=1)
    for one in (deployed, deployed.on("openvino")):
        assert difference(one(x), net(x)) <= 1e-5
