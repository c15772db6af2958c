"""What the five methods refuse alike: values and networks that make no sense, by name and in one line."""

import math

import pytest
from networks import METHODS
from torch import nn
from torchvision.models import VGG, googlenet
from torchvision.models.vgg import make_layers
from torchvision.models.video import r3d_18

from dynlib import backbones
from dynlib.book.zoo.coverage import on_meta
from dynlib.errors import InputError

NOT = (math.nan, True, "x")  # what no number is
WRONG = {
    "wae": {
        "variant": ("haar", None),
        "lam": (-1, *NOT),
        "gamma_share": (-1, *NOT),
        "twin": (0, 1.5, *NOT),
        "heads": ("none",),
        "sizes": ("crop",),
    },
    "octconv": {
        "alpha": (1.5, -0.1, *NOT),
        "downsampling": ("max",),
        "sizes": ("crop",),
        "high_to_low": (1,),
        "low_to_high": (None,),
        "pooled_control": ("yes", 0),
        "vanilla": ("layer4", (4,), None),
    },
    "s2dnas": {
        "cuts": ((), ((0, 2, 2, 8),), ((1, 8),), ((0, 2, 8), (0, 4)), ((0, True, 8),), 8),
        "reuse": (((1, 1),), ((1, 1, 2),), 1),
        "exit_thresholds": ((0.5, 0.5, 0.5), (math.nan,), (-0.1,), (True,), 0.5),
        "form": ("layer",),
    },
    "sampling": {
        "sampling": ("random",),
        "interpolation": ("cubic",),
        "masks": (4, True),
        "density": (0, 1.5, *NOT),
        "window": (4, -1),
        "grid": (0, 1.5),
        "seed": (-1, 0.5),
        "tau": (0.0, *NOT),
        "pruned": (1, -0.1),
        "sigma": (math.inf, 0),
    },
    "drnet": {
        "candidates": ((), (224, 168), (1, 0.5, 0.75), (1, 0), (0.75, 0.5), (1, True), "large"),
        "alpha": (0, 2.5, *NOT),
        "eta": (-0.1, math.inf, *NOT),
        "tau": (0, *NOT),
        "tau_start": (-5,),
        "predictor": ("resnet18",),
        "predictor_side": (1.5, 0),
        "predictor_width": (0, *NOT),
        "predictor_lr": (0,),
        "routed": (1,),
        "antialias": (None,),
    },
}


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [(key, field, value) for key, fields in WRONG.items() for field, values in fields.items() for value in values],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_refused_with_field_value_and_what_is_allowed(key, field, value):
    with pytest.raises(InputError, match=rf"^{field} (is|has) .+; .+") as error:
        METHODS[key].Config(**{field: value})
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300


@pytest.mark.parametrize(
    ("key", "settings", "words"),
    [
        ("octconv", {"pooled_control": True}, "pooled_control is a control at alpha 0 .*; alpha is 0.5"),
        ("octconv", {"pooled_control": True, "alpha": 0, "downsampling": "strided"}, "downsampling is 'strided'"),
        ("wae", {"lam": 0.5, "variant": "wavelet"}, r"lam is 0\.5; variant 'wavelet' has no use for it"),
        ("wae", {"wavelet": "db2", "variant": "wavelet"}, "wavelet is 'db2'; allowed: cdf97, haar"),
        ("wae", {"wavelet": "haar"}, "wavelet is 'haar'; variant 'wae' has no use for it"),
        ("wae", {"sizes": "pad", "variant": "full"}, "sizes is 'pad'; variant 'full' has no use for it"),
        ("s2dnas", {"form": "layers", "cuts": [[0, 8]]}, "leave out cuts"),
        ("s2dnas", {"form": "msdnet", "reuse": [[1, 1, 1]]}, "leave out cuts"),
        ("s2dnas", {"form": "msdnet", "exit_thresholds": (0.5, 0.5)}, "all thresholds but one"),
        ("sampling", {"sampling": "uniform"}, "uniform sampling needs"),
        ("sampling", {"sampling": "deterministic", "density": 0.5}, "deterministic sampling computes where"),
        ("drnet", {"supervised": True, "joint": False}, "supervised is true and joint false"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(key, settings, words):
    with pytest.raises(InputError, match=words):
        METHODS[key].Config(**settings)


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("wae", {"lam": 2}, {"lam": 2.0}),
        ("octconv", {"alpha": 0, "vanilla": ["a"]}, {"alpha": 0.0, "vanilla": ("a",)}),
        ("s2dnas", {"cuts": [[0, 8]], "exit_thresholds": [1]}, {"cuts": ((0, 8),), "exit_thresholds": (1.0,)}),
        ("sampling", {"density": 1}, {"density": 1.0}),
        ("drnet", {"candidates": [1, 0.5], "eta": 1}, {"candidates": (1.0, 0.5), "eta": 1.0}),
    ],
)
def test_one_setting_has_one_value_however_it_is_written(key, one, other):
    assert repr(METHODS[key].Config(**one)) == repr(METHODS[key].Config(**other))


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("key", "build", "words"),
    [
        (
            "wae",
            lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()),
            "^Sequential: its scores come by way of 0; what can",
        ),
        ("octconv", lambda: backbones.build("resnext50_32x4d"), r"^layer1.0.conv2: 32 groups do not divide 112"),
        ("octconv", lambda: nn.Sequential(nn.Flatten(), nn.Linear(150528, 1)), "^Sequential has no convolution"),
        ("s2dnas", lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()), "ends in one linear layer"),
        ("sampling", lambda: backbones.build("vgg11"), "^VGG has no residual block"),
        ("drnet", lambda: VGG(make_layers([8, "M"], False), 10, init_weights=False), "^VGG has no batch norm"),
        ("drnet", lambda: googlenet(init_weights=False), "^GoogLeNet: .* differs in training mode"),
        ("drnet", lambda: r3d_18(num_classes=2), "takes clips"),
    ],
)
def test_a_network_without_what_a_method_needs_is_refused_by_name_in_one_line(key, build, words):
    config = METHODS[key].Config(**{"alpha": 0.125} if key == "octconv" else {})
    with pytest.raises(InputError, match=words) as error:
        METHODS[key].convert(on_meta(build), config)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300
