import json
import os
from dataclasses import replace

import pytest

from dynlib import paths
from dynlib.book import records
from dynlib.errors import InputError


@pytest.fixture
def record():
    config = {"alpha": 0.5, "arch": "resnet50"}
    return records.Record(
        key="octconv",
        kind="training",
        profile="smoke",
        config=config,
        config_hash=records.config_hash(config),
        dataset={},
        seed=3,
        metrics={"top1": 0.5},
        curve=[{"epoch": 1, "loss": 2.0}],
        environment=records.environment(),
        wall_s=1.5,
    )


def test_a_saved_record_is_found_again_by_its_configuration_and_seed(record, tmp_path):
    records.save(record, tmp_path)
    assert records.lookup("octconv", "training", "smoke", record.config, 3, tmp_path) == record
    assert records.lookup("octconv", "training", "smoke", record.config, 4, tmp_path) is None
    assert list(records.find("octconv", "training", folder=tmp_path)) == [record]
    assert list(records.find("octconv", "training", "public", tmp_path)) == []


def test_the_hash_ignores_the_order_of_keys_and_nothing_else():
    assert records.config_hash({"a": 1, "b": 2}) == records.config_hash({"b": 2, "a": 1})
    assert records.config_hash({"a": 1}) != records.config_hash({"a": 1.5})


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = paths.write_atomically(tmp_path / "a.json", "old")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paths.os, "replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        paths.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_run_left_is_removed_and_what_another_run_writes_is_not(tmp_path):
    left, written = tmp_path / ".a.json.x.part", tmp_path / ".a.json.y.part"
    for path in (left, written):
        path.write_text("half")
        os.utime(path, (0, 0))
    held = paths.claimed(written)
    paths.write_atomically(tmp_path / "a.json", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [written.name, "a.json"]
    os.close(held)
    paths.write_atomically(tmp_path / "a.json", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="file"):
        paths.write_atomically(tmp_path / "file" / "a.json", "x")


def test_an_infinite_metric_is_refused(record, tmp_path):
    with pytest.raises(InputError, match="loss is inf"):
        records.save(replace(record, metrics={"loss": float("inf")}), tmp_path)


def test_the_environment_names_machine_versions_and_commit():
    environment = records.environment(threads=2)
    assert {"device", "threads", "torch", "onnxruntime", "openvino", "commit", "date"} <= set(environment)
    assert all(environment[name] for name in ("device", "torch", "commit", "date"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"metrics": {"top1": float("nan")}}, "holds NaN"),
        (lambda content: content | {"metrics": {"rules": [{"top1": float("inf")}]}}, "holds Infinity"),
        (lambda content: content | {"seed": "3"}, "seed is '3'; it is of type int"),
        (lambda content: content | {"metrics": []}, "metrics is .*; it is of type dict"),
        (lambda content: content | {"seed": 4}, "belongs to octconv/training-smoke-.*-s4.json"),
        (lambda content: content | {"key": "drnet"}, "belongs to drnet/training"),
        (lambda content: content | {"kind": "latency"}, "belongs to octconv/latency"),
        (lambda content: content | {"config": {"alpha": 1}}, "does not fit its config"),
        (lambda content: [content], "exactly the fields"),
        (lambda content: {k: v for k, v in content.items() if k != "curve"}, "exactly the fields"),
    ],
)
def test_a_damaged_record_is_refused_by_its_file(record, tmp_path, change, message):
    path = records.save(record, tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=message) as caught:
        records.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"{", b"[" * 5000, b'{"metrics": {"top1": 1e999}}'])
def test_bytes_that_are_no_record_are_refused(record, tmp_path, damage):
    path = records.save(record, tmp_path)
    path.write_bytes(damage)
    with pytest.raises(InputError, match="not a record"):
        records.load(path)


@pytest.mark.parametrize(
    ("metrics", "words"), [({"top1": "high"}, "top1 is 'high'"), ({"miou": 7}, "miou is 7"), ({}, "none of top1")]
)
def test_a_training_without_a_score_that_is_a_fraction_is_refused(record, tmp_path, metrics, words):
    with pytest.raises(InputError, match=words):
        records.load(records.save(replace(record, metrics=metrics), tmp_path))
