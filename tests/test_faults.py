"""Wrong settings and damaged files by the hundred: each is one line and exit status 2, and nothing is written.

Each kind is tried a few times; FAULTS in the environment says how many times as many. FAULTS=10 are 500 settings and
options, 200 damaged files, and 150 damaged records, weights and checkpoints.
"""

import dataclasses
import json
import os
import random

import nbformat
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dynlib import checkpoints, data, latency, settings
from dynlib.book import records, runs
from dynlib.book.demos import wae_alone
from dynlib.book.recipes import Recipe
from dynlib.errors import InputError
from dynlib.papers import METHODS, method
from tests.test_cli import PARAMETERS, photographs  # noqa: F401  a fixture

FAULTS = int(os.environ.get("FAULTS", "1"))
NEVER = (".nan", ".inf", "much", "{a: 1}", "[[[[1]]]]", "2020-01-01", "!!python/name:os.system ''", "[1", "-.inf", "''")
NETWORK = ("--arch", "cifar_resnet20", "--size", "32")


def some(cases, of=10):
    """Every so many-th, another one of each kind in turn."""
    return [case for number, case in enumerate(cases) if (number * 7) % of < FAULTS]


def names(error, path):
    """A refusal of a file is one line with its name."""
    assert path.name in str(error) and "\n" not in str(error) and len(str(error)) <= 400 + len(str(path)), error


# ----------------------------------------------------------------------------------------------- settings and options

SETTINGS = some([(key, name, bad) for key in METHODS for name in settings.names(method(key).Config) for bad in NEVER])
RECIPE = some([(name, bad) for name in settings.names(Recipe) for bad in NEVER])
WRONG = {  # by option: what is no value of it
    "--size": ("", "0", "-1", "x", "1x", "32x0", "1e9", "9" * 30, "32,32", "nan", "8193", "32x32x32"),
    "--classes": ("0", "-1", "x", "1.5", "9" * 30, "nan", ""),
    "--batch": ("0", "-1", "x", "1.5", "9" * 30, ""),
    "--threads": ("0", "-1", "x", "9999", "1.5", ""),
    "--repeats": ("0", "-1", "x", "9" * 30),
    "--shares": ("", "x", ".nan", "1,1", "-1,2", ".inf", "[1]", "0.5"),
    "--engine": ("", "x", "numpy"),
    "--dtype": ("", "float16", "x"),
    "--arch": ("", "resnet5", "resnet50 ", "x" * 500, "../resnet50", "r3d_18", "RESNET50"),
}
OF_LATENCY = ("--batch", "--threads", "--repeats", "--shares", "--engine", "--dtype")
OPTIONS = some([(option, bad) for option, values in WRONG.items() for bad in values], of=5)
OF_TRAINING = {
    "--seed": ("-1", "x", "1.5", "9" * 30, ""),
    "--precision": ("", "16", "float64"),
    "--profile": ("", "x", "..", "../smoke", "x" * 300),
    "--data-root": ("nowhere", "README.md", "x" * 300),
    "-p": ("", "alpha", "=1", "alpha=", "a b=1", "alpah=1", "alpha=1=1", f"alpha={'[' * 3000}", "alpha=\x00"),
}
TRAINING = some([(option, bad) for option, values in OF_TRAINING.items() for bad in values], of=5)


@pytest.mark.parametrize(("key", "name", "bad"), SETTINGS)
def test_a_setting_that_makes_no_sense_is_refused_by_its_name(refused, key, name, bad):
    assert name in refused("cost", key, *NETWORK, "-p", f"{name}={bad}")


@pytest.mark.parametrize(("name", "bad"), RECIPE)
def test_so_is_one_of_a_recipe_and_nothing_is_left(book, refused, name, bad):
    book.chapter("02_octconv", parameters=PARAMETERS)
    assert name in refused("train", "octconv", "-p", f"{name}={bad}")
    assert book.files() == []


@pytest.mark.parametrize(("option", "bad"), OPTIONS)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_measured(refused, monkeypatch, option, bad):
    monkeypatch.setattr(latency.subprocess, "run", lambda *a, **k: pytest.fail("measured"))
    key, command = ("s2dnas" if option == "--shares" else "octconv"), ("latency" if option in OF_LATENCY else "cost")
    given = [] if option == "--arch" else ["--arch", "cifar_resnet20"]
    assert option.strip("-") in refused(command, key, *given, option, bad)


@pytest.mark.parametrize(("option", "bad"), TRAINING)
def test_a_training_asked_wrongly_is_refused_before_it_begins(book, refused, monkeypatch, option, bad):
    book.chapter("02_octconv", parameters=PARAMETERS)
    monkeypatch.setattr(runs, "measure", lambda *a, **k: pytest.fail("trained"))
    refused("train", "octconv", option, bad)
    assert book.files() == []


# ------------------------------------------------------------------------------------------------------ damaged bytes


def cut(content, chance):
    """The beginning alone."""
    return content[: chance.randrange(len(content))]


def flipped(content, chance):
    """One bit is another one."""
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def zeroed(content, chance):
    """A stretch was never written."""
    start = chance.randrange(len(content))
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def foreign(content, chance):
    """Bytes of something else."""
    return chance.randbytes(chance.randrange(1, 4096))


DAMAGES = (cut, flipped, zeroed, foreign)
TIMES = [(damage, number) for damage in DAMAGES for number in range(FAULTS)]
by_damage = pytest.mark.parametrize(("damage", "number"), TIMES, ids=lambda value: getattr(value, "__name__", value))


def damaged(path, damage, number):
    """Whether the file is really another one now."""
    before = path.read_bytes()
    path.write_bytes(damage(before, random.Random(f"{path.name} {damage.__name__} {number}")))
    return path.read_bytes() != before


@by_damage
def test_a_data_set_that_is_not_the_stated_one_is_refused(photographs, damage, number):  # noqa: F811
    path = photographs / "cifar10" / "train.npz"
    if damaged(path, damage, number):
        with pytest.raises(InputError) as error:
            data.load("cifar10", "train", photographs)
        names(error.value, path)


@by_damage
def test_a_data_set_whose_checksum_nobody_states_is_refused_or_the_same(photographs, damage, number):  # noqa: F811
    path = photographs / "cifar10" / "train.npz"
    path.with_name("README.md").unlink()
    whole = data.load("cifar10", "train", photographs).images
    damaged(path, damage, number)
    try:
        assert torch.equal(data.load("cifar10", "train", photographs).images, whole)
    except InputError as error:
        names(error, path)


@by_damage
def test_a_notebook_or_a_profile_that_is_none_is_named(book, refused, damage, number):
    for kind in ("notebook", "profile"):
        book.chapter("02_octconv", parameters=PARAMETERS)
        book.profile("public", "02_octconv", "alpha: 0.25\nepochs: 2\nlr: 0.1\n")
        path = book.notebooks / "02_octconv.ipynb"
        path = path if kind == "notebook" else book.profiles / "public" / "02_octconv.yml"
        if damaged(path, damage, number) and not readable(path, kind):
            line = refused("train", "octconv", "--profile", "public")
            assert "02_octconv" in line or damage is flipped  # a letter of a text that nobody checks, and no data
    assert book.files() == []


def readable(path, kind):
    """Whether anybody could take it for whole."""
    try:
        if kind == "notebook":
            return bool(nbformat.read(path, 4).cells)
        found = settings.read(path)
        return found.keys() <= {"alpha", "epochs", "lr"}
    except Exception:
        return False


@by_damage
def test_an_archive_with_a_line_that_is_no_record_is_refused_whole(book, refused, record, damage, number):
    path = book.root / "records.jsonl"
    line = json.dumps(dataclasses.asdict(record))
    path.write_text(line)
    if damaged(path, damage, number) and not same(path, record):
        path.write_bytes(f"{line}\n".encode() + path.read_bytes().replace(b"\n", b" ") + f"\n{line}\n".encode())
        assert "records.jsonl" in refused("campaign", "--import", path)
        assert book.files() == ["records.jsonl"]


def test_a_record_does_not_say_where_it_is_written(book, refused, record):
    path = book.root / "records.jsonl"
    path.write_text(json.dumps(dataclasses.asdict(record) | {"key": "../elsewhere"}) + "\n")
    assert "key is '../elsewhere'" in refused("campaign", "--import", path)
    assert book.files() == ["records.jsonl"]


# ------------------------------------------------------------------------------------ damaged records and checkpoints


@pytest.fixture
def record():
    config = {"method": {"alpha": 0.5}, "recipe": {"arch": "cifar_resnet20"}}
    return records.made("octconv", "training", "smoke", config, metrics={"top1": 0.5}, wall_s=1.0, threads=1)


def same(path, record):
    """Whether a damaged record is one still: a digit of a result or a letter of a name is another one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    try:
        return isinstance(found, dict) and records.checked(found, "").config == record.config
    except InputError:
        return False


@by_damage
def test_a_damaged_record_stops_whoever_reads_it(tmp_path, record, damage, number):
    path = records.save(record, tmp_path)
    if damaged(path, damage, number) and not same(path, record):
        with pytest.raises(InputError) as error:
            list(records.find("octconv", "training", folder=tmp_path))
        names(error.value, path)


@by_damage
def test_damaged_weights_are_never_loaded(tmp_path, damage, number):
    path = wae_alone.keep(wae_alone.fresh(), {"lambda": 1.0}, tmp_path)
    if damaged(path, damage, number):
        with pytest.raises(InputError) as error:
            wae_alone.kept(1.0, tmp_path)
        names(error.value, path)


@by_damage
def test_damaged_weights_given_by_people_are_refused_or_fit(tmp_path, refused, damage, number):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(300), "b": torch.zeros(300)}, path)
    damaged(path, damage, number)
    assert "weights.safetensors" in refused("deploy", "octconv", *NETWORK, "--weights", path, "--out", tmp_path / "out")
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def trained(path):
    """A network and its optimizer after one step, and their checkpoint."""
    torch.manual_seed(0)
    net = nn.Linear(40, 20)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net(torch.randn(4, 40)).sum().backward()
    optimizer.step()
    checkpoints.save(path, checkpoints.State("this run", [{"loss": 1.0}]), net, optimizer)
    return net, optimizer


@by_damage
def test_a_damaged_checkpoint_stops_the_run_and_changes_nothing(tmp_path, damage, number):
    path = tmp_path / "run.safetensors"
    net, optimizer = trained(path)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    if damaged(path, damage, number):
        with pytest.raises(InputError) as error:
            checkpoints.restore(path, checkpoints.State("this run"), net, optimizer)
        names(error.value, path)
        assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


CHANGES = {
    "another network": lambda tensors, about: (tensors | {"model.weight": torch.zeros(3, 3)}, about),
    "an unknown layer": lambda tensors, about: (tensors | {"model.other": torch.zeros(3)}, about),
    "a missing layer": lambda tensors, about: ({k: v for k, v in tensors.items() if k != "model.bias"}, about),
    "momentum of another shape": lambda tensors, about: (
        tensors | {"optimizer.0.momentum_buffer": torch.zeros(3)},
        about,
    ),
    "momentum of no parameter": lambda tensors, about: (
        tensors | {"optimizer.9.momentum_buffer": torch.zeros(3)},
        about,
    ),
    "a name of nothing": lambda tensors, about: (tensors | {"optimizer.x": torch.zeros(3)}, about),
    "no state": lambda tensors, about: (tensors, {}),
    "a state that is no object": lambda tensors, about: (tensors, {"state": "[1]"}),
    "a state without a run": lambda tensors, about: (tensors, {"state": '{"curve": []}'}),
    "a curve that is none": lambda tensors, about: (tensors, {"state": '{"run": "this run", "curve": 3}'}),
    "another run": lambda tensors, about: (tensors, {"state": '{"run": "that run", "curve": []}'}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_is_whole_but_another_one_is_refused(tmp_path, change):
    path = tmp_path / "run.safetensors"
    net, optimizer = trained(path)
    _, about = checkpoints.read(path, "a checkpoint")
    tensors, about = change(load_file(path), about)
    checkpoints.write(path, tensors, **about)
    with pytest.raises(InputError) as error:
        checkpoints.restore(path, checkpoints.State("this run"), net, optimizer)
    names(error.value, path)


def test_a_checkpoint_from_before_there_were_checksums_is_read(tmp_path):
    path = tmp_path / "run.safetensors"
    net, optimizer = trained(path)
    save_file(load_file(path), path, {"state": json.dumps({"run": "this run", "curve": []})})
    checkpoints.restore(path, checkpoints.State("this run"), net, optimizer)
