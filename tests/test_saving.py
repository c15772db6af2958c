"""A loaded network with stages can still be cut, and weights of other settings are refused."""

import io
import pickle

import people
import pytest
import torch
from networks import SMALL

from dynlib.errors import InputError
from dynlib.papers import drnet, method, octconv, s2dnas


def test_a_loaded_network_with_stages_can_be_cut_anew_and_split():
    converted = s2dnas.convert(people.Body(people.normed).eval(), s2dnas.Config())
    loaded = pickle.loads(pickle.dumps(converted))  # noqa: S301  it was written on this line
    for network in (loaded, converted):
        s2dnas.recut(network, s2dnas.Config(cuts=((0, 1, 3, 8),)))
    assert (
        s2dnas.cost(loaded, 32)
        == s2dnas.cost(converted, 32)
        != s2dnas.cost(s2dnas.convert(people.Body(people.normed), s2dnas.Config()), 32)
    )


def test_a_slice_as_long_as_another_map_says_is_saved_with_its_network():
    class Cropped(people.Body):
        def forward(self, x):
            x = super().forward(x)
            return x[:, : x.shape[1] // 2]

    converted = drnet.convert(Cropped(people.normed).eval(), drnet.Config(**SMALL)).eval()
    loaded = pickle.loads(pickle.dumps(converted))  # noqa: S301  it was written on this line
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x, resolution=0).logits, converted(x, resolution=0).logits)


@pytest.mark.parametrize(
    ("key", "one", "two", "words"),
    [
        (
            "octconv",
            octconv.Config(alpha=0.25),
            octconv.Config(alpha=0.5),
            "those of alpha 0.25, this network has alpha 0.5",
        ),
        ("octconv", octconv.Config(), octconv.Config(vanilla=("block.*",)), "has alpha 0.5, vanilla"),
        ("s2dnas", s2dnas.Config(), s2dnas.Config(cuts=((0, 1, 2, 8),)), "those of cuts .* this network has cuts"),
        (
            "drnet",
            drnet.Config(**SMALL),
            drnet.Config(**SMALL | {"candidates": (1.0, 0.25)}),
            r"candidates \(1.0, 0.5\)",
        ),
    ],
)
def test_weights_of_other_settings_are_refused(key, one, two, words):
    first, second = (method(key).convert(people.Body(people.normed), config) for config in (one, two))
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    state = torch.load(file, weights_only=True)
    method(key).convert(people.Body(people.normed), one).load_state_dict(state)
    with pytest.raises(InputError, match=words) as error:
        second.load_state_dict(state)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300
