"""Deployed networks: what eager says or a refusal by name, folders that load without torch, threads, damage."""

import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from strange_networks import strange
from torch import nn

from dynlib import engines, export, runtime
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.errors import InputError
from dynlib.papers import drnet, octconv, s2dnas, sampling, wae
from dynlib.papers.sampling.masks import samplers
from dynlib.paths import ROOT


def images(batch=1, size=32, channels=3):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(size))


def small():
    torch.manual_seed(0)
    return strange(CifarResNet(8, width=8)).eval()


def scored(net):
    """Scores of the masks that differ from place to place."""
    for sampler in samplers(net).values():
        nn.init.normal_(sampler.score.weight, std=0.1)
        nn.init.zeros_(sampler.score.bias)
    return net


METHODS = {
    "octconv": lambda: octconv.convert(small(), octconv.Config()),
    "wae": lambda: wae.convert(small(), wae.Config()),
    "drnet": lambda: drnet.convert(small(), drnet.Config(predictor_width=0.125)),
    "s2dnas": lambda: s2dnas.convert(small(), s2dnas.Config(exit_thresholds=(0.2,))),
    "sampling": lambda: scored(sampling.convert(small(), sampling.Config(sigma=1.0))),
}
MODULES = {"octconv": octconv, "wae": wae, "drnet": drnet, "s2dnas": s2dnas, "sampling": sampling}


@pytest.fixture(scope="module", params=METHODS)
def both(request):
    """A converted network and its deployed form."""
    module = METHODS[request.param]().eval()
    return module, MODULES[request.param].deploy(module, images(), threads=1)


@pytest.fixture(scope="module")
def folder(both, tmp_path_factory):
    return both[1].save(tmp_path_factory.mktemp("deployed"))


def same(found, expected, close=1e-5):
    return export.difference(found, expected) <= close


# ---------------------------------------------------------------------------------------------------- all five methods


def test_a_deployed_network_answers_as_the_module_in_tensors_of_the_same_names(both):
    module, deployed = both
    for x in (images(), images(5)):
        with torch.no_grad():
            expected = module(x)
        found = deployed(x)
        assert same(found, expected) and getattr(found, "_fields", ()) == getattr(expected, "_fields", ())


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
ours = {"dynlib", "dynlib.engines", "dynlib.errors", "dynlib.runtime"}
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


SIGNALLED = """
import gc, signal, subprocess, sys
from dynlib import runtime
signal.signal(signal.SIGCHLD, lambda *_: None)
nets = [runtime.load(sys.argv[1], engine="openvino", threads=1) for _ in range(3)]
while nets:
    del nets[0]
    gc.collect()
for _ in range(3):
    subprocess.run(["true"], check=True)
"""


def test_a_process_survives_signals_after_openvino_networks_are_gone(one):
    subprocess.run([sys.executable, "-c", SIGNALLED, str(one)], check=True, cwd=ROOT)


def test_two_threads_get_what_one_gets(both):
    _, deployed = both
    batches = [images(n, 32) for n in (1, 2, 3)] * 10
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(deployed, batches))
    assert all(same(mine, deployed(x), 0) for mine, x in zip(found, batches, strict=True))


def test_no_storage_is_shared(both):
    module, deployed = both
    before = deployed(images())
    changed = copy.deepcopy(dict(module.state_dict()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
        assert same(deployed(images()), before, 0)
        module.load_state_dict(changed)


def test_images_may_lie_in_any_order_but_must_be_those_promised(both):
    _, deployed = both
    x = images(2)
    expected = deployed(x)
    assert same(deployed(x.to(memory_format=torch.channels_last)), expected, 0)
    assert same(deployed(x.flip(-1).contiguous().flip(-1).requires_grad_()), expected, 0)
    wrong = (x.double(), x.half(), x[:, :1], x[0], x[..., :16], x[:0], x.tolist(), x.to("meta"), x.numpy().astype(int))
    for other in wrong:
        with pytest.raises(InputError, match=r"images are .*allowed: .*float32 \(N, 3, 32, 32\) on the CPU"):
            deployed(other)


def test_it_can_be_neither_pickled_nor_read_as_a_module(both):
    for wrong in (pickle.dumps, copy.deepcopy, lambda deployed: deployed.state_dict()):
        with pytest.raises(InputError, match=r"save\(folder\)"):
            wrong(both[1])


# -------------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def one(tmp_path):
    """A folder of the smallest network."""
    deployed = export.single("octconv", nn.Conv2d(3, 2, 1), images(), "onnxruntime", 1)
    return deployed.save(tmp_path / "net")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "network.onnx").write_bytes(b"x"), r"network.onnx is damaged: checksum"),
        (lambda folder: (folder / "network.onnx").unlink(), r"network.onnx cannot be read: No such file"),
        (lambda folder: (folder / "deployed.json").write_text("{"), r"deployed.json cannot be read"),
        (lambda folder: (folder / "deployed.json").write_text("[]"), r"has format None; this version reads format 1"),
        (lambda folder: rewritten(folder, format=2), r"deployed.json has format 2; this version reads format 1"),
        (
            lambda folder: rewritten(folder, kind="strange"),
            r"has kind 'strange'; allowed: graph, .*",
        ),
    ],
)
def test_a_damaged_folder_or_another_version_is_refused_in_one_line(one, damage, words):
    assert runtime.load(one, threads=1)(images()).shape == (1, 2, 32, 32)
    damage(one)
    with pytest.raises(InputError, match=words) as refused:
        runtime.load(one)
    assert "\n" not in str(refused.value)


def rewritten(folder, **changed):
    about = json.loads((folder / "deployed.json").read_text())
    (folder / "deployed.json").write_text(json.dumps(about | changed))


def test_folders_engines_and_threads_that_cannot_be_are_refused(one, monkeypatch):
    with pytest.raises(InputError, match=r"deployed.json cannot be read .*; give a folder written by save"):
        runtime.load(one / "nowhere")
    with pytest.raises(InputError, match="engine is 'tensorrt'; allowed: onnxruntime, openvino"):
        runtime.load(one, engine="tensorrt")
    monkeypatch.setattr(engines, "allowed_threads", lambda: 1)
    with pytest.raises(InputError, match="threads is 2; this process may use 1 cores: 1 to 1"):
        runtime.load(one, threads=2)
    with pytest.raises(InputError, match="cannot write"):
        runtime.load(one, threads=1).save(one / "deployed.json" / "below")


def test_nothing_of_this_machine_stands_in_the_graph(one):
    assert str(ROOT).encode() not in (one / "network.onnx").read_bytes()


# ----------------------------------------------------------------------------------------- networks that others tripped


class Net(nn.Module):
    """Convolutions, an identity, a dropout, an in-place ReLU and a batch norm, used as the function says."""

    def __init__(self, use):
        super().__init__()
        torch.manual_seed(0)
        self.c, self.d, self.one = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)
        self.i, self.drop, self.r, self.bn = nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True), nn.BatchNorm2d(4)
        self.p = nn.Parameter(torch.randn(4, 1, 1))
        nn.init.uniform_(self.bn.running_var, 0.5, 1.5)
        self.use = use

    def forward(self, x):
        return self.use(self, x)


def doubled(n, x):
    y = n.c(x)
    return y + n.i(y)


def dropped(n, x):
    y = n.c(x)
    return torch.relu(n.drop(y)) + y


def normed(n, x):
    y = n.c(x)
    return n.bn(n.i(y)) + y


def late(n, x):
    t = x * 1
    return n.c(t) + n.d(n.r(t))


def added(n, x):
    y = n.c(x)
    y.add_(n.d(x))
    return y


def aliased(n, x):
    a = n.c(x)
    b = a
    b += n.d(x)
    return a


def rectified(n, x):
    y = n.c(x)
    y.relu_()
    return y + n.d(x)


def overwritten(n, x):
    return n.c(n.r(x)) + x


RIGHT = [doubled, dropped, normed, late, added, aliased, rectified, overwritten]
RIGHT += [lambda n, x: x + n.c(F.adaptive_avg_pool2d(x, 1)), lambda n, x: n.c(x) + n.p, lambda n, x: n.c(x) + n.one(x)]
RIGHT += [lambda n, x: F.dropout(n.c(x), 0.5, n.training), lambda n, x: {"out": n.c(x), "aux": [n.d(x), None]}]
RIGHT += [lambda n, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)), lambda n, x: n.c(x) if n.training else n.d(x)]
RIGHT += [lambda n, x: n.d(F.interpolate(n.c(x), scale_factor=2.0, mode="bilinear")).permute(0, 2, 3, 1)]
RIGHT += [lambda n, x: n.c(x).view(x.size(0), -1, 8).mean(1) + x.shape[0]]


@pytest.mark.parametrize("use", RIGHT, ids=lambda use: use.__name__)
def test_sharing_in_place_writing_and_broadcasting_come_out_as_in_eager(use):
    net, x = Net(use).eval(), images(2, 8, channels=4) - 0.5
    deployed = export.single("octconv", net, x.clone(), "onnxruntime", 1)
    kept = x.clone()
    found = deployed(x)
    assert torch.equal(x, kept)
    with torch.no_grad():
        assert same(found, net(x.clone()))


@pytest.mark.parametrize("use", [doubled, dropped, rectified, added, lambda n, x: n.c(x) + n.c(x)])
def test_so_they_do_in_octaves(use):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.head = nn.Conv2d(3, 4, 3, 1, 1), Net(use), nn.Conv2d(4, 5, 1)

        def forward(self, x):
            return self.head(self.body(self.stem(x))).mean((2, 3))

    torch.manual_seed(0)
    net = octconv.convert(strange(Whole()).eval(), octconv.Config(alpha=0.5)).eval()
    with torch.no_grad():
        assert same(octconv.deploy(net, images(1, 16))(images(3, 16)), net(images(3, 16)))


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda n, x: n.c(F.dropout(x, 0.5, True)), "dropout as if in training mode"),
        (lambda n, x: F.batch_norm(n.c(x), None, None, training=True), "batch_norm as if in training mode"),
        (lambda n, x: n.c(x + torch.rand_like(x)), "rand_like draws random numbers"),
        (lambda n, x: n.c(x) if x.sum() > 0 else n.d(x), "Net cannot be exported: .*data-dependent"),
        (lambda n, x: torch.special.bessel_j0(n.c(x)), "operator .*bessel_j0 has no ONNX form"),
        (lambda n, x: n.c(x[:, :2]), "does not run on images .*: Given groups=1"),
        (lambda n, x: "a word", "the network returns a str"),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_name_in_one_line(use, words):
    with pytest.raises(InputError, match=words) as refused:
        export.single("octconv", Net(use).eval(), images(1, 8, channels=4), "onnxruntime", 1)
    assert "\n" not in str(refused.value)


def test_the_layer_of_an_operator_is_named():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False))).eval()
    with pytest.raises(InputError, match=r"^1\.0: batch_norm as if in training mode"):
        export.single("octconv", net, images(), "onnxruntime", 1)


def test_optional_arguments_of_forward_keep_their_defaults():
    class Optional(nn.Conv2d):
        def forward(self, x, targets=None, **more):
            return super().forward(x) if targets is None else F.mse_loss(super().forward(x), targets)

    net = Optional(3, 4, 1).eval()
    assert same(export.single("octconv", net, images(), "onnxruntime", 1)(images(2)), net(images(2)))


def test_grey_images_are_images():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    converted = octconv.convert(net, octconv.Config(), images(1, 28, channels=1))
    x = images(2, 28, channels=1)
    with torch.no_grad():
        assert same(octconv.deploy(converted, x)(x), converted(x))
