"""KEY: shapes, the limiting case, a slow reference, gradients, and the closed form against the counter."""

import pytest
import torch

from dynlib import backbones, cost
from dynlib.errors import InputError
from dynlib.papers import KEY

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return backbones.build("cifar_resnet8", 10).eval()


def test_at_strength_0_the_network_is_the_network(network):
    converted = KEY.convert(network, KEY.Config(strength=0))
    assert torch.equal(converted(IMAGES), network(IMAGES))


def test_the_converted_network_answers_in_the_shape_of_the_network(network):
    assert KEY.convert(network, KEY.Config())(IMAGES).shape == (2, 10)


def test_closed_form_and_counter_agree_as_integers(network):
    converted = KEY.convert(network, KEY.Config())
    assert KEY.cost(converted, 32).macs == cost.count(converted, IMAGES[:1]).macs


def test_the_deployed_network_gives_the_same_outputs(network):
    converted = KEY.convert(network, KEY.Config()).eval()
    deployed = KEY.deploy(converted, IMAGES)
    torch.testing.assert_close(deployed(IMAGES), converted(IMAGES), rtol=1e-4, atol=1e-4)


def test_a_setting_out_of_range_is_refused_by_name():
    with pytest.raises(InputError, match="strength is 2; it is a share from 0 to 1"):
        KEY.Config(strength=2)


def test_the_operator_equals_a_slow_reference_written_from_the_equations():
    pytest.fail("write the paper's equations as plain loops in float64, and compare")


def test_the_gradient_of_every_parameter_is_finite_and_some_are_not_zero():
    pytest.fail("one backward pass of the loss on IMAGES")
