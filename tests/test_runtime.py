"""Deployed networks: what eager says or a refusal by name, folders that load without torch, threads, damage."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import images
from people import added, aliased, doubled, dropped, late, normed, rectified
from torch import nn

from dynlib import engines, export, runtime
from dynlib.errors import InputError
from dynlib.paths import ROOT


def same(found, expected, close=1e-5):
    return export.difference(found, expected) <= close


# -------------------------------------------------------------------------------------------------------------- folders


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of the smallest network."""
    deployed = export.single("octconv", nn.Conv2d(3, 2, 1), images(1), "onnxruntime", 1)
    return deployed.save(tmp_path_factory.mktemp("saved") / "net")


@pytest.fixture
def one(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "net")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "network.onnx").write_bytes(b"x"), r"network.onnx is damaged: checksum"),
        (lambda folder: (folder / "network.onnx").unlink(), r"network.onnx cannot be read: No such file"),
        (lambda folder: (folder / "deployed.json").write_text("{"), r"deployed.json cannot be read"),
        (lambda folder: (folder / "deployed.json").write_text("[]"), r"has format None; this version reads format 2"),
        (lambda folder: rewritten(folder, format=1), r"deployed.json has format 1; this version reads format 2"),
        (lambda folder: rewritten(folder, kind="strange"), r"deployed.json was changed; allowed: other thresholds; "),
        (lambda folder: rewritten(folder, files={"../other/network.onnx": "0"}), r"deployed.json was changed"),
    ],
)
def test_a_damaged_folder_or_another_version_is_refused_in_one_line(one, damage, words):
    assert runtime.load(one, threads=1)(images(1)).shape == (1, 2, 32, 32)
    damage(one)
    with pytest.raises(InputError, match=words) as refused:
        runtime.load(one)
    assert "\n" not in str(refused.value)


def rewritten(folder, **changed):
    about = json.loads((folder / "deployed.json").read_text())
    (folder / "deployed.json").write_text(json.dumps(about | changed))


def test_what_was_deployed_to_a_folder_before_goes_and_nothing_else(one):
    net = runtime.load(one, threads=1)
    rewritten(one, files={"stage_3.onnx": "0", "../theirs.onnx": "0"})
    for name in ("stage_3.onnx", "theirs.onnx", "../theirs.onnx"):
        (one / name).write_bytes(b"a graph")
    net.save(one)
    assert sorted(path.name for path in one.iterdir()) == ["deployed.json", "network.onnx", "theirs.onnx"]
    assert (one.parent / "theirs.onnx").exists()


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_loaded_network_is_not_that_of_the_process_that_asks(one):
    held = np.ones(60_000_000)  # 480 MB
    asked = [sys.executable, "-m", "dynlib.runtime", str(one), "onnxruntime", "1", "1"]
    told = json.loads(subprocess.run(asked, check=True, cwd=ROOT, capture_output=True).stdout)
    assert 20 < told["peak_mb"] < held.nbytes / 1e6


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


def overwritten(n, x):
    return n.c(n.r(x)) + x


RIGHT = [doubled, dropped, normed, late, added, aliased, rectified, overwritten]
RIGHT += [lambda n, x: x + n.c(F.adaptive_avg_pool2d(x, 1)), lambda n, x: n.c(x) + n.p, lambda n, x: n.c(x) + n.one(x)]
RIGHT += [lambda n, x: F.dropout(n.c(x), 0.5, n.training), lambda n, x: {"out": n.c(x), "aux": [n.d(x), None]}]
RIGHT += [lambda n, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)), lambda n, x: n.c(x) if n.training else n.d(x)]
RIGHT += [lambda n, x: n.d(F.interpolate(n.c(x), scale_factor=2.0, mode="bilinear")).permute(0, 2, 3, 1)]
RIGHT += [lambda n, x: n.c(x).view(x.size(0), -1, 8).mean(1) + x.shape[0]]


class Many(nn.Module):
    """One network for all uses, each on a copy of the images and with layers of its own."""

    def __init__(self, uses):
        super().__init__()
        self.nets = nn.ModuleDict({f"{use.__name__.strip('<>')}_{n}": Net(use) for n, use in enumerate(uses)})

    def forward(self, x):
        return {name: net(x.clone()) for name, net in self.nets.items()}


@pytest.mark.parametrize("net", [Many(RIGHT), Net(overwritten)], ids=["all", "overwritten"])
def test_sharing_in_place_writing_and_broadcasting_come_out_as_in_eager(net):
    x = images(2, 8, channels=4) - 0.5
    deployed = export.single("octconv", net.eval(), x.clone(), "onnxruntime", 1)
    kept = x.clone()
    found = deployed(x)
    assert torch.equal(x, kept)
    with torch.no_grad():
        expected = net(x.clone())
    parts = [(name, found[name], expected[name]) for name in expected] if isinstance(expected, dict) else []
    assert [name for name, mine, theirs in parts or [("", found, expected)] if not same(mine, theirs)] == []


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
        export.single("octconv", net, images(1), "onnxruntime", 1)


def test_optional_arguments_of_forward_keep_their_defaults():
    class Optional(nn.Conv2d):
        def forward(self, x, targets=None, **more):
            return super().forward(x) if targets is None else F.mse_loss(super().forward(x), targets)

    net = Optional(3, 4, 1).eval()
    assert same(export.single("octconv", net, images(1), "onnxruntime", 1)(images(2)), net(images(2)))


# ----------------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_network_in_int8_answers_nearly_as_in_float32(engine):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 12 * 12, 5)
    ).eval()
    x = images(16, 16)
    deployed = export.single("octconv", net, x[:1], engine, 1, iter([x[:8], x[8:]]))
    assert deployed.about["dtype"] == "int8" and b"QuantizeLinear" in deployed.parts["network"].graph
    assert 0 < export.difference(deployed(x), net(x)) < 0.05


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "calibrate has no batch"),
        ([images(2, 8)[:0]], r"calibrate holds torch.float32 \(0, 3, 8, 8\); allowed: .*, N from 1 up"),
        ([images(2, 4)], r"calibrate holds torch.float32 \(2, 3, 4, 4\); allowed: float32 images \(N, 3, 8, 8\)"),
        ([images(2, 8).double()], r"calibrate holds torch.float64 \(2, 3, 8, 8\)"),
        ([(images(2, 8), torch.zeros(2))], "calibrate holds tuple; allowed: .*, without targets"),
        ([images(2, 8), images(2, 8) * float("nan")], "calibrate holds images with NaN or infinity"),
    ],
)
def test_batches_that_calibrate_nothing_are_refused_before_anything_is_exported(batches, words, monkeypatch):
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(InputError, match=words):
        export.single("octconv", nn.Conv2d(3, 2, 1), images(1, 8), "onnxruntime", 1, batches)


# -------------------------------------------------------------------------------------------------------------- engines


def test_what_another_engine_computes_wrongly_is_not_deployed_on_it():
    class Half(nn.Module):
        def forward(self, x):
            return F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)  # OpenVINO ignores the filter

    assert same(export.single("wae", Half(), images(1), "onnxruntime", 1)(images(2)), Half()(images(2)))
    with pytest.raises(InputError, match=r"^Half: what was exported differs by .*; it cannot be deployed on openvino$"):
        export.single("wae", Half(), images(1), "openvino", 1)


@pytest.mark.parametrize(
    ("engine", "threads"), [("tensorrt", 1), ("onnxruntime", 0), ("openvino", 1.5), ("onnxruntime", "1")]
)
def test_an_engine_or_threads_that_cannot_be_are_refused_before_anything_is_exported(engine, threads, monkeypatch):
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(InputError, match=r"^(engine|threads) is "):
        export.single("octconv", nn.Conv2d(3, 2, 1), images(1), engine, threads)


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


def test_the_time_of_a_call_is_told_by_operator():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(2)).eval()
    net(images(1))
    spent = export.single("octconv", net, images(1), "onnxruntime", 1).operators_ms(images(1), [None] * 3)
    assert {"Conv", "MaxPool", "Gemm"} <= spent.keys()
    assert min(spent.values()) > 0
