"""The auto-encoder, its losses, and the fixed wavelets of the baselines."""

import math

import pytest
import pywt
import torch
from torch import nn

from dynlib import cost
from dynlib.errors import InputError
from dynlib.papers.wae.split import (
    Decoder,
    Encoder,
    classification_loss,
    pca_reference,
    psnr,
    spectrum_share,
    transform_loss,
)
from dynlib.papers.wae.wavelet import WAVELETS, Approximation, Downscale, Wavelet


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------ auto-encoder


def test_encoder_and_decoder_halve_and_restore_the_sides_with_the_published_layers():
    encoder, decoder = Encoder(), Decoder()
    low, high = encoder(images(2, 3, 12, 20))
    assert low.shape == high.shape == (2, 3, 6, 10)
    assert decoder(low, high).shape == (2, 3, 12, 20)
    sizes = [(c.in_channels, c.out_channels, *c.kernel_size) for c in encoder.modules() if isinstance(c, nn.Conv2d)]
    assert sizes == [(3, 16, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3), (16, 3, 3, 3), (16, 3, 3, 3)]
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e3, 1) == 6.0
    assert round(sum(p.numel() for p in decoder.parameters()) / 1e3) == 12


def test_encoder_and_decoder_cost_at_224_px_what_was_counted_by_hand():
    encoder = 224**2 * 9 * 16 * (3 + 16 + 16) + 2 * 112**2 * 9 * 16 * 3
    decoder = 2 * (112**2 * 16 * 3 * 16 + 224**2 * 9 * 16 * (16 + 16 + 3))
    both = nn.Sequential(Encoder(), _Both(Decoder()))
    by_layer = cost.count(both, cost.example(224)).by_layer
    assert sum(macs for name, macs in by_layer.items() if name.startswith("0")) == encoder == 263_725_056
    assert sum(macs for name, macs in by_layer.items() if name.startswith("1")) == decoder == 525_041_664


class _Both(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, pair):
        return self.decoder(*pair)


def test_weights_are_xavier_and_biases_zero():
    torch.manual_seed(0)
    for layer in [*Encoder().modules(), *Decoder().modules()]:
        if isinstance(layer, nn.Conv2d):
            bound = math.sqrt(6 / (9 * (layer.in_channels + layer.out_channels)))
            assert 0.8 * bound < layer.weight.abs().max() <= bound
            assert not layer.bias.any()


def test_losses_equal_slow_loops():
    image, restored, high = (images(2, 3, *side, seed=s).double() for s, side in enumerate([(4, 6), (4, 6), (2, 3)]))
    error, energy = 0.0, 0.0
    for a, b in zip(image.flatten().tolist(), restored.flatten().tolist(), strict=True):
        error += (a - b) ** 2 / image.numel()
    for a in high.flatten().tolist():
        energy += a * a / high.numel()
    assert transform_loss(image, restored, high, 0.7).item() == pytest.approx(error + 0.7 * energy, rel=1e-12)

    scores, targets = [images(3, 4, seed=s).double() for s in (3, 4)], torch.tensor([2, 0, 3])
    entropy = 0.0
    for score in scores:
        for row, target in zip(score.tolist(), targets.tolist(), strict=True):
            entropy += (math.log(sum(map(math.exp, row))) - row[target]) / 3
    assert classification_loss(scores, targets).item() == pytest.approx(entropy, rel=1e-12)


def test_psnr_is_that_of_the_definition():
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(1 / 255**2) == pytest.approx(20 * math.log10(255))


def test_the_spectrum_of_noise_is_three_quarters_detail_of_a_ramp_little_and_of_a_checkerboard_all():
    noise = spectrum_share(images(4, 3, 64, 64))
    assert noise.shape == (4,) and (noise - 0.75).abs().max() < 0.04
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert spectrum_share(ramp).item() < 0.05
    checkers = torch.arange(64)[:, None].add(torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    assert spectrum_share(checkers).item() == pytest.approx(1)
    assert spectrum_share(torch.full((1, 3, 8, 8), 0.3)).item() == pytest.approx(0, abs=1e-9)


def test_the_pca_levels_equal_those_of_a_slow_projection():
    image = images(2, 3, 8, 8).double().cumsum(3) / 8  # neighbours agree, as in photographs
    blocks = []
    for picture in image:
        for row in range(0, 8, 2):
            for column in range(0, 8, 2):
                blocks.append(picture[:, row : row + 2, column : column + 2].flatten())
    blocks = torch.stack(blocks)
    centred = blocks - blocks.mean(0)
    axes = torch.linalg.svd(centred).Vh
    for kept, found in pca_reference(image, (6, 3)).items():
        error = (centred - centred @ axes[:kept].T @ axes[:kept]).square().mean().item()
        assert found == pytest.approx(psnr(error), rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "kept", "says"), [((1, 3, 7, 8), (6,), "even sides"), ((1, 3, 8, 8), (12,), "kept is")]
)
def test_pca_levels_of_what_has_no_blocks_are_refused(shape, kept, says):
    with pytest.raises(InputError, match=says):
        pca_reference(torch.zeros(shape), kept)


# ----------------------------------------------------------------------------------------------------------- wavelets


def taps(filters):
    """A filter of odd length as {offset from its middle: value}; pywt's zeros are left out."""
    kept = [(index, value) for index, value in enumerate(filters) if value]
    middle = (kept[0][0] + kept[-1][0]) // 2
    return {index - middle: value for index, value in kept}


def mirrored(index, size):
    """Whole-sample reflection."""
    return -index if index < 0 else 2 * (size - 1) - index if index >= size else index


def slow_bands(row, name):
    """Low and high band of a list, in float64, by the definition: low around even samples, high around odd ones."""
    wavelet = pywt.Wavelet(WAVELETS[name][0])
    if name == "haar":
        pairs = list(zip(row[::2], row[1::2], strict=True))
        return [(a + b) / 2 for a, b in pairs], [(a - b) / 2 for a, b in pairs]
    bands = []
    for filters, start in ((wavelet.dec_lo, 0), (wavelet.dec_hi, 1)):
        band = []
        for centre in range(start, len(row), 2):
            weighted = (v * row[mirrored(centre + k, len(row))] for k, v in taps(filters).items())
            band.append(sum(weighted) / math.sqrt(2))
        bands.append(band)
    return bands


@pytest.mark.parametrize("name", WAVELETS)
def test_the_wavelet_equals_slow_loops_in_double_precision(name):
    image = images(1, 3, 8, 12).double()
    low, details = Wavelet(name).double()(image)
    for channel in range(3):
        rows = [slow_bands(row, name) for row in image[0, channel].tolist()]  # 8 rows, each (low, high)
        expected = {}
        for across in (0, 1):
            columns = zip(*(row[across] for row in rows), strict=True)
            split = [slow_bands(list(column), name) for column in columns]
            for along in (0, 1):
                expected[across, along] = torch.tensor([band[along] for band in split], dtype=torch.float64).T
        torch.testing.assert_close(low[0, channel], expected[0, 0], rtol=0, atol=1e-7)  # filters are float32
        for index, key in enumerate([(0, 1), (1, 0), (1, 1)]):
            torch.testing.assert_close(details[0, 3 * index + channel], expected[key], rtol=0, atol=1e-7)


def test_nothing_is_lost_in_cdf97_the_inverse_filters_restore_the_row():
    row, wavelet = images(16).double().tolist(), pywt.Wavelet("bior4.4")
    image = torch.tensor(row).double().expand(1, 3, 16, 16)  # every row the same: the columns' high band is empty
    low, details = Wavelet("cdf97").double()(image)
    mixed = torch.stack([low[0, 0, 3], details[0, 3, 3]], 1).flatten().tolist()  # low at even places, high at odd ones
    inverse = [taps(wavelet.rec_lo), taps(wavelet.rec_hi)]
    for place, value in enumerate(row):
        restored = 0.0
        for offset in range(-5, 6):
            source = place + offset
            restored += mixed[mirrored(source, 16)] * inverse[source % 2].get(-offset, 0.0) * math.sqrt(2)
        assert restored == pytest.approx(value, abs=1e-6)
    assert details[0, :3].abs().max() < 1e-7 and details[0, 6:].abs().max() < 1e-7


@pytest.mark.parametrize("name", WAVELETS)
def test_a_constant_image_keeps_its_value_and_has_no_details(name):
    low, details = Wavelet(name)(torch.full((2, 3, 8, 10), 0.3))
    torch.testing.assert_close(low, torch.full((2, 3, 4, 5), 0.3))
    assert details.shape == (2, 9, 4, 5) and details.abs().max() < 1e-6


@pytest.mark.parametrize(
    "half", [Approximation("cdf97"), Approximation("haar"), Downscale()], ids=["cdf97", "haar", "resize"]
)
def test_the_small_images_of_the_baselines_have_half_the_side_and_no_parameters(half):
    assert half(images(2, 3, 12, 20)).shape == (2, 3, 6, 10)
    assert not list(half.parameters())
    assert half(torch.full((1, 3, 12, 20), 0.3)).sub(0.3).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["downscaled", "approximation", "wavelet"])
def test_the_baselines_take_images_in_bfloat16(name):
    half = {"downscaled": Downscale(), "approximation": Approximation(), "wavelet": Wavelet()}[name]
    flat = torch.full((1, 3, 12, 20), 0.25, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        small = half(flat)[0] if name == "wavelet" else half(flat)
    assert small.float().sub(0.25).abs().max() < 1e-2
