"""Octaves of clips, which are of space alone, and of transposed convolutions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import assert_deployed
from torch import nn
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

from dynlib import cost, train
from dynlib.book import recipes, runs
from dynlib.book.recipes import Recipe
from dynlib.book.zoo import video_resnet
from dynlib.book.zoo.octconv_released import video_macs
from dynlib.data.augment import flip_and_shift, shift
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.ops import Octave, OctConv2d, Split, octave_conv, split_channels
from dynlib.papers.octconv.transposed import OctConvTranspose2d


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def frames(x):
    """A clip's images, (N T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("downsampling", ["average", "strided"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_of_one_frame_does_to_every_frame_what_it_does_to_an_image(stride, downsampling):
    x, w, out = Octave(randn(2, 2, 3, 8, 4), randn(2, 4, 3, 4, 2)), randn(6, 6, 3, 3), Split(4, 2)
    options = {"stride": stride, "downsampling": downsampling}
    clip = octave_conv(x, w[:, :, None], randn(6), out, padding=(0, 1, 1), **options)
    image = octave_conv(Octave(*map(frames, x)), w, randn(6), out, padding=(1, 1), **options)
    for ours, reference in zip(clip, image, strict=True):
        assert torch.allclose(frames(ours), reference, atol=1e-12)


def test_a_kernel_of_one_pixel_sees_time_in_each_band_and_takes_its_stride_there():
    x, w, out = Octave(randn(1, 2, 6, 4, 4), randn(1, 2, 6, 2, 2)), randn(4, 4, 3, 1, 1), Split(2, 2)
    y = octave_conv(x, w, None, out, padding=(1, 0, 0), time_stride=2)
    assert (y.high.shape, y.low.shape) == ((1, 2, 3, 4, 4), (1, 2, 3, 2, 2))
    whole = torch.cat([x.high, x.low.repeat_interleave(2, 3).repeat_interleave(2, 4)], 1)
    plain = F.conv3d(whole, w, None, (2, 1, 1), (1, 0, 0))  # of one pixel, so that bands of equal content agree
    assert torch.allclose(y.high, plain[:, :2], atol=1e-12)
    assert torch.allclose(y.low, F.avg_pool3d(plain[:, 2:], (1, 2, 2)), atol=1e-12)


@pytest.mark.parametrize(("alpha", "stride"), [(0.25, (1, 1, 1)), (0.5, (2, 2, 2)), (0.5, (1, 2, 2))])
def test_a_layer_of_clips_costs_the_paper_s_share_whatever_its_time(alpha, stride):
    plain = nn.Conv3d(16, 32, 3, stride, 1)
    ratio = 1 - 0.75 * alpha * (2 - alpha) if stride[-1] == 1 else 1 - 0.75 * alpha
    layer = OctConv2d(plain, split_channels(16, alpha), split_channels(32, alpha), name="conv")
    shapes = [(16 - layer.inp.low, 4, 8, 8), (layer.inp.low, 4, 4, 4)]
    y = layer(Octave(*(torch.ones(1, *shape) for shape in shapes)))
    macs = layer.macs((Octave(*shapes),), Octave(*(tuple(band.shape[1:]) for band in y)))
    assert macs == ratio * cost.count(plain, torch.ones(1, 16, 4, 8, 8)).macs


def test_a_network_of_clips_converts_counts_and_learns_but_is_not_deployed():
    torch.manual_seed(0)
    plain, size = VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], BasicStem, num_classes=8), (4, 32, 32)
    net, x = convert(plain, Config()), cost.example(size, batch=2)
    assert octconv.cost(net, size).macs == cost.count(net, cost.example(size)).macs < cost.count(plain, x[:1]).macs
    assert torch.equal(convert(plain, Config(alpha=0)).eval()(x), plain.eval()(x))
    F.cross_entropy(net.train()(x), torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    with pytest.raises(InputError, match=r"^example is torch.float32 \(2, 3, .*not clips"):
        octconv.deploy(net, x)


@pytest.mark.parametrize(
    ("arch", "alpha", "giga"),
    [("c2d", 0, "19.29"), ("c2d", 0.1, "17.34"), ("i3d", 0, "28.11"), ("i3d", 0.1, "25.53"), ("i3d", 0.2, "23.13")],
)
def test_video_resnets_have_the_computed_costs_of_table_8(arch, alpha, giga):
    """The paper prints 19.3, 17.4, 28.1, 25.6 and, which does not follow from the architecture, 22.1."""
    with torch.device("meta"):
        unpadded, padded = (video_resnet.MODELS[f"{arch}_resnet50"](400, pool_padding=p) for p in (0, 1))
    net, x = convert(padded, Config(alpha=alpha)), cost.example((8, 224, 224)).to("meta")
    assert octconv.cost(net, (8, 224, 224)).macs == cost.count(net, x).macs
    assert f"{video_macs(net) / 1e9:.2f}" == giga
    if alpha == 0:
        assert video_macs(net) == cost.count(unpadded, x).macs
    else:
        with pytest.raises(InputError, match=r"^layer1.0.body.0.0: 224 px become 55 px"):
            convert(unpadded, Config(alpha=alpha))


def test_a_recipe_of_clips_trains_and_its_record_counts_a_clip():
    recipe = Recipe("i3d_resnet14", "scenes_clips", epochs=1, batch_size=16, lr=0.02, width=4, train_images=16)
    hardware = train.Hardware("cpu")
    record, net = runs.fit("octconv", Config(), recipe, profile="smoke", seed=0, checkpoints=None, hardware=hardware)
    assert record.dataset["name"] == "scenes_clips" and record.metrics["size_px"] == 32
    assert record.metrics["macs"] == octconv.cost(net.cpu(), (8, 32, 32)).macs


def test_clips_are_shifted_in_training_but_never_mirrored_and_can_be_tested_at_another_size():
    batches, valid = recipes.data("scenes_clips", 16, 16, None, None)
    assert batches.augment is shift and recipes.data("scenes", 16, 16, None, None)[0].augment is flip_and_shift
    few = replace(valid, samples=valid.samples.subset(range(2)))
    assert recipes.at_size(few, 16).samples.images.shape == (2, 3, 8, 16, 16)


@pytest.mark.parametrize(("arch", "data"), [("resnet18", "scenes_clips"), ("r3d_18", "scenes")])
def test_a_recipe_whose_network_and_data_are_not_of_one_kind_is_refused(arch, data):
    with pytest.raises(InputError, match=f"^dataset {data} holds .*, but arch {arch} takes .*; give one kind$"):
        Recipe(arch, data, epochs=1)


# ---------------------------------------------------------------------------------------------- transposed, ours


class UNet(nn.Module):
    """Two levels down and up again, a skip by concatenation and one by addition."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.down1 = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.same, self.down2 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up2 = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.up1 = nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = self.stem(x)
        near = self.same(self.down1(x).relu())
        far = self.up2(self.down2(near))
        return self.head(self.up1(torch.cat([near, far], 1)).relu())


@pytest.mark.parametrize(
    "settings", [{"alpha": 0.25}, {"high_to_low": False, "low_to_high": False, "downsampling": "strided"}]
)
def test_a_decoder_has_octaves_too_with_equal_outputs_deployed(settings):
    net = convert(UNet().eval(), Config(**settings))
    assert net.up1.inp.low and net.up1.out.low
    assert_deployed(octconv, net)


def test_a_decoder_whose_smallest_map_is_odd_is_refused_by_the_layer_that_pools_it_or_padded():
    """20 px become 5, which the first transposed layer reads and cannot halve, though its own map of 10 px halves."""
    x = cost.example(20)
    with pytest.raises(InputError, match=r"^size 20x20: up2\.0 needs sides that are multiples of 8, "):
        convert(UNet(), Config(), x)(x)
    padded = convert(UNet(), Config(sizes="pad"), x)(x)
    assert padded.shape == (1, 5, 24, 24)


def test_a_decoder_on_a_constant_image_is_the_plain_one_where_kernels_are_tiles_so_channels_kept_their_places():
    plain = UNet().eval()
    with torch.no_grad():
        for name in ("stem", "down1", "same", "down2"):  # one pixel each
            weight = plain.get_submodule(name).weight
            weight *= F.pad(torch.ones(1, 1), (1, 1, 1, 1))
        plain.up2[0].weight.copy_(plain.up2[0].weight.mean((2, 3), True).expand_as(plain.up2[0].weight))
        tile = torch.zeros(4, 4)
        tile[1:3, 1:3] = 1  # of a kernel of 4 at stride 2, the middle alone makes a constant map
        plain.up1.weight.copy_(plain.up1.weight.mean((2, 3), True) * tile)
        x = torch.randn(2, 3, 1, 1).expand(2, 3, 32, 32)
        assert torch.allclose(convert(plain, Config())(x), plain(x), atol=1e-5)


def test_three_of_four_paths_of_a_transposed_layer_cost_a_quarter_and_gradients_reach_all_kernels():
    plain = nn.ConvTranspose2d(4, 8, 2, 2)
    layer = OctConvTranspose2d(plain, Split(2, 2), Split(4, 4), name="up")
    y = layer(Octave(torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)))
    assert (y.high.shape, y.low.shape) == ((1, 4, 16, 16), (1, 4, 8, 8))
    shapes = (Octave((2, 8, 8), (2, 4, 4)),)
    assert layer.macs(shapes, None) * 16 == 7 * cost.count(plain, torch.ones(1, 4, 8, 8)).macs
    (y.high.square().sum() + y.low.square().sum()).backward()
    assert all(block.any() for rows in plain.weight.grad.split(2) for block in rows.split(4, 1))


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(8, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 2, 2, groups=2), nn.ConvTranspose2d(8, 8, 2, 1)],
)
def test_a_transposed_layer_that_does_not_grow_by_its_stride_is_refused_by_name(layer):
    with pytest.raises(
        InputError, match=r"^up: ConvTranspose2d with kernel .* in one group, where a map grows"
    ) as error:
        OctConvTranspose2d(layer, Split(4, 4), Split(4, 4), name="up")
    assert "\n" not in str(error.value)
