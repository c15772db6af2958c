"""What the five methods promise alike of their deployed networks: the module's answers, files, threads, refusals."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import METHODS, converted, images, network

from dynlib import export, runtime
from dynlib.errors import InputError
from dynlib.papers.sampling.masks import observed
from dynlib.paths import ROOT

DEPLOYED = [  # what `both`, each method's default on a residual network, has not; of drnet, see test_drnet_deploy.py
    *(("wae", "projection", {"variant": variant}) for variant in ("low", "wavelet", "downscaled")),
    *(("wae", name, {}) for name in ("scored map", "channels last", "windows", "windows, second form")),
    *(("octconv", name, {}) for name in ("grouped", "pre-activation", "dense", "depthwise", "branches")),
    ("octconv", "gates in groups", {"alpha": 0.25}),
    ("octconv", "pad", {"alpha": 0, "pooled_control": True}),
    ("octconv", "pad", {"alpha": 1}),
    ("octconv", "pad", {"downsampling": "strided", "high_to_low": False}),
    ("octconv", "pad", {"vanilla": ("layer2.0.*",), "low_to_high": False}),
    ("s2dnas", "dense", {"cuts": ((0, 3, 8),)}),  # test_s2dnas_*.py deploy residual, grouped and gated ones
    ("sampling", "bottleneck", {"masks": 1, "interpolation": "convolution"}),
    ("sampling", "bottleneck", {"masks": 3, "interpolation": "average"}),
    ("sampling", "bottleneck", {"masks": 3, "interpolation": "zeros"}),
    ("sampling", "bottleneck", {"sampling": "deterministic", "grid": None}),
    ("sampling", "bottleneck", {"sampling": "uniform", "density": 0.5}),
    ("sampling", "grouped", {"masks": 3, "interpolation": "reuse"}),
    ("sampling", "dilated", {"masks": 3}),
    ("sampling", "basic", {"masks": 1, "interpolation": "reuse"}),
]
CLOSE = {"wae": 1e-5, "octconv": 1e-5, "s2dnas": 1e-5, "sampling": 1e-4}  # other orders of summation


@pytest.mark.parametrize(("key", "name", "settings"), DEPLOYED, ids=str)
def test_a_deployed_network_answers_as_the_module_whatever_its_settings_and_the_batch(key, name, settings):
    net = converted(key, network(name), **({"sigma": 1.0} if key == "sampling" else {}) | settings)
    size = 72 if key == "sampling" else 32 if name.startswith(("pad", "projection", "windows")) else 64
    deployed = METHODS[key].deploy(net, images(1, size), threads=1)
    for x in (images(1, size), images(3, size)):
        with torch.no_grad(), observed(net) as samples:
            expected = net(x)
        if key == "s2dnas":  # no exit is left out
            last = torch.full((len(x),), len(expected.exits) - 1)
            found, expected = deployed(x, choices=last).exits, expected.exits
        else:
            found = deployed(x)
        assert export.difference(found, expected) <= CLOSE[key]
        assert all(0.02 < sample.mask.mean() < 0.98 for sample in samples.values())


# ---------------------------------------------------------------------------------------------------------- one of each


@pytest.fixture(scope="module", params=METHODS)
def both(request):
    """A method's network and its deployed form."""
    net = converted(request.param, network()).train()
    before = copy.deepcopy(net.state_dict())
    deployed = METHODS[request.param].deploy(net, images(1), threads=1)
    assert all(part.training for part in net.modules())  # its mode and its state are left alone
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    return net.eval(), deployed


@pytest.fixture(scope="module")
def folder(both, tmp_path_factory):
    return both[1].save(tmp_path_factory.mktemp("deployed"))


def same(found, expected, close=1e-5):
    return export.difference(found, expected) <= close


def test_the_answers_have_the_names_of_the_modules_and_its_choices(both):
    net, deployed = both
    with torch.no_grad():
        expected, found = net(images(8)), deployed(images(8))
    assert getattr(found, "_fields", ()) == getattr(expected, "_fields", ())
    for name in ("choice", "taken"):
        assert not hasattr(found, name) or torch.equal(getattr(found, name), getattr(expected, name))
    assert same(getattr(found, "logits", found), getattr(expected, "logits", expected))


WITHOUT_TORCH = """
import importlib.abc, sys
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxscript", "torchvision", "pandas", "scipy"}:
            raise ImportError(name)
sys.meta_path.insert(0, Wall())
import numpy as np
from dynlib import runtime
net = runtime.load(sys.argv[1], threads=1)
found = net(np.load(sys.argv[2]))
np.save(sys.argv[3], found if isinstance(found, np.ndarray) else found.logits)
ours = {"dynlib", *(f"dynlib.{name}" for name in ("decisions", "deployed", "engines", "errors", "runtime"))}
assert {name for name in sys.modules if name.startswith("dynlib")} == ours
"""


def test_what_was_saved_loads_where_there_is_no_torch(both, folder, tmp_path):
    np.save(tmp_path / "images.npy", images(4).numpy())
    files = [str(tmp_path / name) for name in ("images.npy", "found.npy")]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(folder), *files], check=True, cwd=ROOT)
    expected = both[1](images(4).numpy())
    expected = expected if isinstance(expected, np.ndarray) else expected.logits
    assert np.array_equal(np.load(files[1]), expected)


def test_openvino_answers_alike(both, folder):
    for net in (both[1].on("openvino", 1), runtime.load(folder, engine="openvino", threads=1)):
        assert (net.engine, net.threads) == ("openvino", 1)
        assert same(net(images(3)), both[1](images(3)), 1e-4)


SILENT = """
import os, sys
from pathlib import Path
from dynlib import runtime
runtime.load(sys.argv[1], engine="openvino", threads=1)
print(*(name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module))
print(*Path(os.environ["HOME"]).rglob("*"))
"""


def test_openvino_reports_to_nobody_and_leaves_nothing_at_home(folder, tmp_path):
    told = {"cwd": ROOT, "env": os.environ | {"HOME": str(tmp_path)}, "capture_output": True, "text": True}
    found = subprocess.run([sys.executable, "-c", SILENT, str(folder)], check=True, **told)
    assert found.stdout.split() == []


def test_two_threads_get_what_one_gets(both):
    _, deployed = both
    batches = [images(n, 32) for n in (1, 2, 3)] * 10
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(deployed, batches))
    assert all(same(mine, deployed(x), 0) for mine, x in zip(found, batches, strict=True))


def test_no_storage_is_shared(both):
    module, deployed = both
    before = deployed(images(1))
    changed = copy.deepcopy(dict(module.state_dict()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
        assert same(deployed(images(1)), before, 0)
        module.load_state_dict(changed)


def test_images_may_lie_in_any_order_but_must_be_those_promised(both):
    _, deployed = both
    x = images(2)
    expected = deployed(x)
    assert same(deployed(x.to(memory_format=torch.channels_last)), expected, 0)
    assert same(deployed(x.flip(-1).contiguous().flip(-1).requires_grad_()), expected, 0)
    wrong = (x.double(), x.half(), x[:, :1], x[0], x[..., :16], x[:0], x.tolist(), x.to("meta"), x.numpy().astype(int))
    wrong += (x.bfloat16(), x.to_sparse())
    for other in wrong:
        with pytest.raises(InputError, match=r"images are .*allowed: .*float32 \(N, 3, 32, 32\) on the CPU"):
            deployed(other)


def test_it_can_be_neither_pickled_nor_read_as_a_module(both):
    for wrong in (pickle.dumps, copy.deepcopy, lambda deployed: deployed.state_dict()):
        with pytest.raises(InputError, match=r"save\(folder\)"):
            wrong(both[1])


def test_forced_choices_are_taken_with_the_answers_of_each(both):
    net, deployed = both
    if not deployed.choice_count or isinstance(deployed, runtime.Sampled):  # whose densities are tried by its own tests
        return
    x, forced = images(6), torch.tensor([2, 0, 1, 1, 2, 0]) % deployed.choice_count
    found = deployed(x, choices=forced)
    with torch.no_grad():
        each = torch.stack([net(x, resolution=j).logits for j in range(3)]) if hasattr(net, "score") else net(x).exits
    assert torch.equal(getattr(found, "choice", getattr(found, "taken", None)), forced)
    assert not hasattr(found, "z") or torch.equal(found.z, deployed(x).z), "the predictor runs all the same"
    torch.testing.assert_close(found.logits, each[forced, torch.arange(6)], rtol=1e-4, atol=1e-5)


def test_choices_that_are_none_are_refused(both):
    _, deployed = both
    count = deployed.choice_count
    words = rf"choices are .*; allowed: int64 \(2,\) from 0 to {count - 1}$" if count else "has nothing to choose"
    for choices in ([0, 1, 0], [0.0, 1.0], [0, count], [-1, 0]):
        with pytest.raises(InputError, match=words):
            deployed(images(2), choices=torch.tensor(choices))
    with pytest.raises(InputError, match="choices are"):
        deployed(images(2), choices=[[0], [0, 1]])


@pytest.mark.parametrize("key", METHODS)
def test_weights_and_images_that_no_deployed_network_has_are_refused_by_name(key):
    net = converted(key, network())
    for wrong in (images(1)[0], images(1).half(), images(1)[:, :, None], images(0)):
        with pytest.raises(InputError, match=r"^example is torch\.float.*; allowed: float32 images \(N, C, H, W\)"):
            METHODS[key].deploy(net, wrong)
    with pytest.raises(InputError, match=r"is torch\.float64 on cpu; deployed networks are float32 on the CPU"):
        METHODS[key].deploy(net.double(), images(1).double())
