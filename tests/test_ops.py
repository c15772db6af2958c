import pytest
import torch
from torch import nn

from dynlib.ops import evaluating, output_of, pad_to_multiple, sound_gradients


@pytest.mark.parametrize(("size", "padded"), [((7, 8), (8, 8)), ((8, 8), (8, 8)), ((9, 1), (12, 4))])
def test_padding_adds_zeros_below_and_to_the_right_only(size, padded):
    x = torch.ones(2, 3, *size)
    y = pad_to_multiple(x, 4)
    assert y.shape[-2:] == padded
    assert torch.equal(y[..., : size[0], : size[1]], x) and y.sum() == x.sum()


def test_evaluating_gives_every_part_its_own_mode_back_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1).eval())
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training and not model[0].training
        raise ZeroDivisionError
    assert model.training and model[0].training and not model[1].training


def test_the_output_of_a_layer_is_that_of_its_part_and_no_hook_stays():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = torch.randn(4, 2)
    assert torch.equal(output_of(model, "1", x), model[1](model[0](x)))
    assert not model[1]._forward_hooks


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_narrow_strided_kernels_give_the_same_numbers_and_a_gradient_that_stays_in_its_memory(channels):
    conv = nn.Conv2d(channels, 2 * channels, 1, 2, bias=False)
    x = torch.randn(4, channels, 9, 7)
    expected, stride = conv(x), conv.stride
    (gradient,) = torch.autograd.grad(expected.square().sum(), conv.weight)
    conv, x = conv.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with sound_gradients(conv):
        for _ in range(20):  # what is written beyond a buffer is noticed late
            y = conv(x)
            y.square().sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(conv.weight.grad / 20, gradient)
    assert conv.stride == stride and not conv._forward_pre_hooks


def test_taps_that_see_no_pixel_have_no_gradient():
    conv = nn.Conv2d(64, 128, 3, 2, 1, bias=False)
    for _ in range(6):  # what is left in memory is not always noticed
        rest = [torch.full((128, 64, 3, 3), float("nan")) for _ in range(40)]
        del rest
        with sound_gradients(conv), torch.autocast("cpu", torch.bfloat16):
            loss = conv(torch.randn(256, 64, 1, 1)).square().mean()
        (gradient,) = torch.autograd.grad(loss, conv.weight)
        gradient[..., 1, 1] = 0
        assert not gradient.any()
    assert not conv._forward_pre_hooks
