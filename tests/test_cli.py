"""The command line: what it prints for people and for programs, and one line for whatever was asked wrongly."""

import hashlib
import json
import subprocess
import sys
from unittest.mock import ANY

import numpy as np
import pytest
import test_data_packed

from dynlib.book import paperscale, runs
from dynlib.book.cli import main
from dynlib.book.records import load
from dynlib.papers import octconv
from dynlib.paths import ROOT

PARAMETERS = """\
alpha = 0.5
arch = "cifar_resnet20"
width: int | None = 4
dataset = "cifar10"
epochs = 1
batch_size = 8
lr = 0.1
"""
SMALL = ("--arch", "cifar_resnet20", "--size", "32")


def told(capsys, *arguments) -> dict:
    """What a command says to a program."""
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


@pytest.fixture
def photographs(tmp_path):
    """A data root with a CIFAR-10 of 20 noisy images a split, and the split's files."""
    lines = []
    for split in ("train", "test"):
        images, labels = test_data_packed.photographs(20, 32, 32), np.arange(20) % 10
        path = test_data_packed.write(tmp_path / "data", "cifar10", split, images, label=labels)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    path.with_name("README.md").write_text("".join(lines))
    return tmp_path / "data"


def test_the_list_tells_chapters_methods_and_data_sets(book, capsys):
    book.chapter("02_octconv")
    book.profile("public", "02_octconv", "alpha: 0.25\n")
    listed = told(capsys, "list")
    assert listed["chapters"]["02_octconv"] == {
        "profiles": ["smoke", "public"],
        "parameters": {"alpha": {"default": 0.5, "type": "float", "help": "share of low-frequency channels"}},
    }
    assert listed["methods"]["octconv"] == "Octave convolution" and "cifar10" in listed["datasets"]
    assert main(["list"]) == 0
    plain = capsys.readouterr().out
    assert "02_octconv  (profiles: smoke, public)" in plain and "\x1b" not in plain
    assert [line.split(maxsplit=3) for line in plain.splitlines() if line.startswith("alpha")] == [
        ["alpha", "0.5", "float", "share of low-frequency channels"]
    ]


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["run", "no_such_chapter"]])
def test_help_and_the_list_come_without_torch(arguments):
    program = f"import sys; from dynlib.book.cli import main; main({arguments}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True).returncode == 0


def test_a_cost_is_told_in_integers_and_equals_its_closed_form(capsys):
    cost = told(capsys, "cost", "octconv", *SMALL, "-p", "alpha=0.25", "--classes", "10")
    assert {"arch": "cifar_resnet20", "size": 32, "params": 269_722, "macs_static": 40_551_040}.items() <= cost.items()
    assert cost["closed_form"] == cost["macs"] < cost["macs_static"] and type(cost["macs"]) is int
    assert cost["ratio"] == cost["macs_static"] / cost["macs"]
    assert cost["config"]["alpha"] == 0.25 and cost["authors_macs"] > cost["macs"] and "relu" in cost["uncounted"]


def test_an_oblong_image_is_named_by_height_and_width(capsys):
    cost = told(capsys, "cost", "octconv", "--arch", "cifar_resnet20", "--size", "32x64")
    assert cost["size"] == [32, 64] and cost["closed_form"] == cost["macs"]


def test_cost_of_a_cifar_network_is_for_32_px_and_10_classes_unless_told_otherwise(capsys):
    asked = ("cost", "octconv", "--arch", "cifar_resnet20", "-p", "alpha=0")
    assert told(capsys, *asked) == told(capsys, *asked, "--size", "32", "--classes", "10")
    assert main(["cost", "octconv", "--arch", "cifar_resnet20", "-p", "alpha=0"]) == 0
    assert "32 px, 10 classes" in capsys.readouterr().out


def test_a_cost_is_told_to_people_in_units(capsys):
    assert main(["cost", "octconv", *SMALL, "-p", "alpha=0", "--classes", "10"]) == 0
    out, _ = capsys.readouterr()
    assert "MACs" in out and "40.551 M" in out and "0.270 M" in out and "alpha=0.0" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cost", "octcnov", *SMALL], "method 'octcnov' is unknown; allowed: octconv"),
        (["cost", "octconv", "--arch", "resnet5"], "arch 'resnet5' is unknown; allowed: resnet50"),
        (["cost", "octconv", "--arch", "r3d_18"], "arch is r3d_18, which takes clips"),
        (["cost", "octconv", *SMALL, "-p", "alpah=0.5"], "setting 'alpah' is unknown; allowed: alpha, "),
        (["cost", "octconv", *SMALL, "-p", "alpha=much"], "alpha is 'much'; allowed: float"),
        (["cost", "octconv", *SMALL, "-p", "alpha=1.5"], "alpha is 1.5; it is a finite number from 0 to 1"),
        (["cost", "octconv", "--arch", "resnet18", "--size", "225"], "size 225x225: "),
        (["cost", "octconv", "--arch", "resnet18", "--size", "big"], "size 'big': write S or HxW"),
        (
            ["cost", "octconv", "--arch", "vgg11", "--size", "16", "-p", "alpha=0"],
            "size is 16x16, which vgg11 cannot take",
        ),
        (["latency", "octconv", *SMALL, "--threads", "0"], "threads is 0; this process may use "),
        (["cost", "octconv", "--arch", "resnet18", "--size", "100000"], "whole pixels up to 8192"),
        (["cost", "octconv", "--arch", "resnet18", "--size", ""], "--size is empty; give it a value"),
        (["cost", "octconv", *SMALL, "--classes", "1000000000000"], "Invalid value for '--classes'"),
        (["latency", "s2dnas", *SMALL, "--shares", ".nan,0.5,0.5"], "shares is '.nan,0.5,0.5'; allowed: finite"),
        (["latency", "octconv", *SMALL, "--batch", "1000000000000"], "Invalid value for '--batch'"),
        (["train", "octconv", "--seed", "9223372036854775807"], "Invalid value for '--seed'"),
        (["train", "octconv", "-p", "test_sizes_px=[50000]"], "test_sizes_px is [50000]; each is from 1 to 8192"),
        (["run", "02_octconv", "-p", "alphas=[]"], "alphas is []; give at least one"),
        (["run", "02_octconv", "-p", "seed=-1"], "seed is -1; it is a whole number from 0"),
        (["run", "02_octconv", "-p", "epochs=0"], "epochs is 0"),
        (["run", "02_octconv", "-p", "dataset=nope"], "dataset 'nope' is unknown"),
        (["run", "02_octconv", "-p", f"alphas={'[' * 5000}"], "nested too deeply"),
        (["run", "02_octconv", "--out", f"{'a' * 300}.ipynb"], "File name too long"),
        (
            ["train", "octconv", "-p", "epochz=3"],
            "setting of octconv and its recipe 'epochz' is unknown; allowed: epochs",
        ),
        (["train", "octconv", "-p", "epochs=1.5"], "epochs is 1.5; allowed: int"),
        (["train", "octconv", "--profile", "nope"], "profile of 02_octconv 'nope' is unknown; allowed: smoke"),
        (["train", "octconv", "-p", "dataset=cifar10", "--data-root", "."], "no data in cifar10: "),
        (["train", "octconv", "-p", "lr=nan"], "lr is 'nan'; allowed: float"),
        (["train", "octconv", "-p", "batch_size=0"], "batch_size is 0; it is a whole number from 1"),
        (["train", "octconv", "--precision", "7"], "precision is '7'; allowed: 32-true"),
        (["latency", "octconv", *SMALL, "--repeats", "0"], "repeats is 0; quartiles need"),
        (["latency", "octconv", *SMALL, "--engine", "x"], "engine is 'x'; allowed: onnxruntime"),
        (["deploy", "octconv", *SMALL, "--out", ".", "--weights", "README.md"], "cannot be read as weights alone"),
        (["deploy", "octconv", *SMALL, "--out", ".", "--weights", "nowhere.pt"], "cannot be read: No such file"),
        (["deploy", "octconv", *SMALL, "--out", "README.md"], "cannot write README.md"),
        (["campaign", "--import", "README.md"], "line 1, is not a record"),
        (["campaign", "nope"], "study 'nope' is unknown; allowed: "),
        (["verdicts", "nope"], "method 'nope' is unknown"),
        (["data", "cifar11", "--data-root", "nowhere"], "data set 'cifar11' cannot be packed: allowed are cifar10"),
        (["cost", "octconv"], "Missing option '--arch'"),
        (["cost", "octconv", *SMALL, "--classes", "ten"], "Invalid value for '--classes'"),
        (["costs"], "No such command 'costs'"),
        (["list", "--jsn"], "No such option: --jsn"),
    ],
)
def test_whatever_is_asked_wrongly_is_answered_in_one_line(refused, arguments, words):
    assert words in refused(*arguments)


@pytest.mark.parametrize("content", [b"no JSON", b"[1]", b"[" * 5000, b"\xff\xfe", b'{"cells": [], "metadata": {}}'])
def test_a_notebook_that_is_none_is_named(book, refused, content):
    (book.notebooks / "02_octconv.ipynb").write_bytes(content)
    for arguments in (["list"], ["run", "02_octconv"], ["train", "octconv"]):
        assert "02_octconv.ipynb is no notebook with one cell of parameters" in refused(*arguments)


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "cannot be read"), (b"alpha: [1", "is not YAML")])
def test_a_profile_that_is_none_is_named(book, refused, content, words):
    book.chapter("02_octconv")
    book.profile("public", "02_octconv", "")
    (book.profiles / "public" / "02_octconv.yml").write_bytes(content)
    assert words in refused("run", "02_octconv", "--profile", "public")


def test_a_full_disk_and_a_closed_pipe_end_without_a_traceback():
    command = [sys.executable, "-m", "dynlib", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "No space left on device" in done.stderr
    closed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    closed.stdout.close()
    assert closed.stderr.read() == "" and closed.wait() == 1


def test_a_latency_is_told_with_its_spread_and_what_was_to_hope_for(book, capsys, stopwatch):
    timed = told(capsys, "latency", "octconv", *SMALL, "-p", "alpha=0.5", "--batch", "2")
    cost = told(capsys, "cost", "octconv", *SMALL, "-p", "alpha=0.5", "--classes", "1000")
    assert timed["macs_ratio"] == cost["ratio"] and timed["efficiency"] == pytest.approx(1.5 / cost["ratio"])
    assert timed["speedup_iqr"] == [1.4, 1.6] and timed["variants_ms"] == {"eager": 3.0} and timed["batch"] == 2
    assert timed["config"] == cost["config"] and timed["size"] == 32 and timed["environment"]["threads"] == 1
    assert {"dtype", "static_ms", "method_ms", "speedup", "static_variant", "threads", "arch"} <= timed.keys()
    assert book.files() == []


def test_a_latency_becomes_a_record_when_that_is_asked_for(book, capsys, stopwatch):
    assert main(["latency", "octconv", *SMALL, "--record"]) == 0
    out, _ = capsys.readouterr()
    (path,) = book.results.glob("octconv/latency-paper-*.json")
    assert f"record: {path}" in out and "3.00 ms" in out
    record = load(path)
    described = paperscale.Timing("cifar_resnet20", (32, 32)).described(octconv.Config())
    assert record.config == described and record.metrics["speedup"] == 1.5


class Held:
    """A module in place of its deployed form, the same on every engine."""

    def __init__(self, module, shape):
        self.module, self.shape, self.on = module, shape, lambda engine: self

    def __call__(self, images):
        return self.module(images)

    def operators_ms(self, images, choices):
        return {"Conv": float(len(choices))}


def test_the_measured_pair_is_the_network_and_its_deployed_form_in_eval_mode(book, stopwatch, monkeypatch):
    monkeypatch.setattr(octconv, "deploy", lambda module, example, **how: Held(module, example.shape))
    monkeypatch.setattr(paperscale.latency, "weigh", lambda deploy, batch: (deploy(), {"export_s": 1.0}))
    main(["latency", "octconv", *SMALL, "-p", "vanilla=[layer3.*]"])
    ((factory, arguments, _),) = stopwatch
    assert factory == "dynlib.book.paperscale:latency_pair" and json.loads(json.dumps(arguments)) == arguments
    static, methods, images, facts = paperscale.latency_pair(batch=3, **arguments)
    assert facts["operators_ms"]["method"] == {"Conv": paperscale.latency.CALLS}
    assert list(methods) == ["onnxruntime", "openvino"]
    for method in methods.values():
        assert images.shape == method.shape == (3, 3, 32, 32)
        assert not static.training and not method.module.training
        assert static(images).shape == method(images).shape == (3, 1000)


def test_a_training_becomes_a_record_once_and_again_only_when_asked(book, capsys, photographs):
    book.chapter("02_octconv", parameters=PARAMETERS)
    train = ("train", "octconv", "--data-root", str(photographs), "-p", "alpha=0.25", "--out", str(book.root / "kept"))
    first = told(capsys, *train)
    assert book.files()[-1].startswith("kept/octconv/training-smoke-") and not list(book.runs.rglob("*.safetensors"))
    record = load(book.root / first["record"])
    assert first["trained"] and first["top1"] == record.metrics["top1"]
    assert record.config["method"]["alpha"] == 0.25 and record.config["recipe"]["arch"] == "cifar_resnet20"
    assert told(capsys, *train) == first | {"trained": False}
    assert main([*train]) == 0
    assert "it was there; --again trains anew" in capsys.readouterr().out
    assert "precision" not in record.environment
    assert told(capsys, *train, "--again", "--precision", "bf16-mixed") == first | {"top1": ANY}
    assert load(book.root / first["record"]).environment["precision"] == "bf16-mixed"
    assert load(book.root / first["record"]).environment["date"] >= record.environment["date"]


def test_a_record_that_cannot_be_written_is_wrong_input(book, refused, photographs, monkeypatch):
    book.chapter("02_octconv", parameters=PARAMETERS)
    blocked = photographs / "cifar10" / "README.md" / "records"
    monkeypatch.setattr(runs, "fit", lambda *a, **k: pytest.fail("trained before looking"))
    line = refused("train", "octconv", "--data-root", str(photographs), "--out", str(blocked))
    assert f"cannot write {blocked}" in line


def test_an_option_without_a_value_is_named_and_nothing_is_written(book, refused):
    for option in ("--out", "--weights", "--size"):
        given = {"--out": "new", option: ""}
        line = refused("deploy", "octconv", *SMALL[:2], *(word for pair in given.items() for word in pair))
        assert line == f"error: {option} is empty; give it a value\n"
    assert book.files() == []


def test_octaves_do_not_go_into_a_method_that_looks_into_layers(refused):
    words = "was converted already; of the methods drnet alone goes around another one"
    assert words in refused("latency", "octconv", *SMALL, "--octaves", "0.5")
