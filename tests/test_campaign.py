"""A campaign makes every missing record once, in order of priority, and a kill costs it nothing that was done."""

import json
import multiprocessing
import time

import pytest

from dynlib.book import campaign, jobs, records
from dynlib.errors import InputError

STUDY = """
tiny:
  recipe: {arch: cifar_resnet8, dataset: scenes, epochs: 3, batch_size: 32, width: 4, train_images: 96}
  seeds: 2
  rows:
    later: {method: {alpha: 0.5}, priority: 2, seeds: 1}
    first: {method: {alpha: 0.0}, priority: 1}
    again: {method: {alpha: 0.0}, priority: 3}
"""


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "octconv.yml").write_text(STUDY)
    return folder


def facts(folder):
    """Of each record what must not depend on when and how often it was begun."""
    found = {}
    for path in sorted(folder.rglob("*.json")):
        record = records.load(path)
        curve = [{name: value for name, value in point.items() if name != "seconds"} for point in record.curve]
        found[path.name] = (record.metrics, curve, record.dataset)
    return found


def run(folder, studies, **options):
    todo = campaign.missing(campaign.rows(studies), folder / "results")
    where = {"folder": folder / "results", "checkpoints": folder / "runs", "root": folder, "accelerator": "cpu"}
    return campaign.run(todo, **where, **options)


def test_the_committed_studies_are_whole_and_name_their_rows_once():
    rows = campaign.rows()
    assert {row.key for row in rows} == {"wae", "octconv", "s2dnas", "sampling", "drnet"}
    assert len({(row.key, row.study, row.name) for row in rows}) == len(rows)


def test_what_is_missing_stands_by_priority_then_by_seed_and_equal_rows_are_one(studies, tmp_path):
    todo = campaign.missing(campaign.rows(studies), tmp_path)
    assert [(job.row.name, job.seed) for job in todo] == [("first", 0), ("first", 1), ("later", 0)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("alpha: 0.5", "alpha: 5", r"octconv.yml: study tiny, row later: alpha is 5"),
        ("epochs: 3", "epochs: 0", r"row later: epochs is 0"),
        ("epochs: 3", "epoch: 3", r"row later: setting 'epoch' is unknown"),
        ("seeds: 2", "seed: 2", r"study tiny: field 'seed' is unknown"),
        ("{method: {alpha: 0.5}, priority: 2, seeds: 1}", "7", r"row later is 7; write one `name: value` a line"),
    ],
)
def test_a_study_that_says_nonsense_is_refused_by_its_place(studies, old, new, message):
    path = studies / "octconv.yml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        campaign.rows(studies)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which a campaign ran undisturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "octconv.yml").write_text(STUDY)
    outcomes = run(folder, folder, archive=folder / "records.jsonl")
    assert [outcome.error for outcome in outcomes] == [""] * 3
    return folder


def test_records_are_made_once_and_an_archive_brings_them_elsewhere(made, tmp_path):
    assert run(made, made) == []
    archive = tmp_path / "records.jsonl"
    archive.write_text((made / "records.jsonl").read_text() + '{"key": "octconv", "ki')  # what a kill leaves
    assert len(campaign.bring_in(archive, tmp_path / "elsewhere")) == 3
    assert campaign.bring_in(archive, tmp_path / "elsewhere") == []
    assert facts(tmp_path / "elsewhere") == facts(made / "results")


def test_an_archive_that_is_none_is_refused_with_its_line(made, tmp_path):
    archive = tmp_path / "records.jsonl"
    first, *rest = (made / "records.jsonl").read_text().splitlines()
    changed = json.loads(first)
    changed["config"]["recipe"]["epochs"] = 30
    archive.write_text("\n".join([*rest, json.dumps(changed), ""]))
    with pytest.raises(InputError, match=r"line 3: config_hash .* does not fit"):
        campaign.bring_in(archive, tmp_path / "elsewhere")


def test_a_run_that_fails_costs_the_others_nothing(studies, tmp_path):
    path = studies / "octconv.yml"
    path.write_text(path.read_text().replace("{alpha: 0.5}, ", "{alpha: 0.5}, recipe: {dataset: cifar10}, "))
    errors = [outcome.error for outcome in run(tmp_path, studies)]
    assert errors[:2] == ["", ""]
    assert errors[2].startswith("no data in")


def test_an_accelerator_that_is_none_and_a_folder_for_an_archive_are_refused_before_anything_begins(studies, tmp_path):
    todo = campaign.missing(campaign.rows(studies), tmp_path / "results")
    for wrong, words in (({"accelerator": "tpu"}, "accelerator is 'tpu'"), ({"archive": tmp_path}, "it is a folder")):
        with pytest.raises(InputError, match=words):
            campaign.run(todo, folder=tmp_path / "results", checkpoints=tmp_path / "runs", root=None, **wrong)
    assert not (tmp_path / "results").exists()


def test_an_archive_without_a_whole_record_is_refused(tmp_path):
    archive = tmp_path / "records.jsonl"
    archive.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"records\.jsonl, line 1, is not a record"):
        campaign.bring_in(archive, tmp_path)


def test_nothing_is_begun_that_would_end_too_late(studies, tmp_path):
    assert run(tmp_path, studies, minutes=59.0) == []  # a row without records is taken for an hour


def test_a_campaign_killed_in_each_of_its_runs_keeps_what_was_done_and_makes_the_same_records(studies, tmp_path, made):
    fresh = multiprocessing.get_context("forkserver")  # one process imports torch, the others begin as its copies
    fresh.set_forkserver_preload([campaign.__name__])
    for epochs in (2, 4, 8):  # whole epochs that lie behind when it is killed, of three a run
        process = fresh.Process(target=run, args=(tmp_path, studies))
        process.start()
        deadline = time.monotonic() + 120
        while _epochs(tmp_path) < epochs and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.join()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    assert before
    run(tmp_path, studies)
    assert facts(tmp_path / "results") == facts(made / "results")
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())  # not made a second time


def _epochs(folder):
    from dynlib.checkpoints import epochs_done

    done = sum(len(records.load(path).curve) for path in (folder / "results").rglob("*.json"))
    return done + sum(epochs_done(path) for path in (folder / "runs").rglob("*.safetensors"))


def test_runs_are_spread_as_asked_and_each_is_one_job(studies, tmp_path, monkeypatch):
    asked = {}

    def each(function, given, **where):
        asked.update(where)
        return [campaign.Outcome(job, None, accelerator) for job, accelerator, _ in given]

    monkeypatch.setattr(jobs, "each", each)
    outcomes = run(tmp_path, studies, workers=3, scheduler="tcp://there")
    assert asked == {"workers": 3, "scheduler": "tcp://there"}
    assert [(outcome.job.row.name, outcome.error) for outcome in outcomes] == [("first", "cpu")] * 2 + [
        ("later", "cpu")
    ]
