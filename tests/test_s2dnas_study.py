"""A search from end to end: what its record holds, that it repeats, and how the command line asks for it."""

import json
from dataclasses import replace

import pytest

from dynlib.book import searches
from dynlib.book.cli import main
from dynlib.book.searches import Search
from dynlib.errors import InputError
from dynlib.papers.s2dnas import Config
from dynlib.papers.s2dnas.search import reward

TINY = Search(
    "scenes",
    proxy_width=8,
    proxy_images=60,
    proxy_held_out_images=40,
    proxy_epochs=1,
    batch_size=30,
    search_stages=2,
    search_groups=3,
    candidates=6,
    omegas=(-0.3,),
    ranked=64,
    retrained=2,
    retrain_epochs=1,
)


@pytest.fixture(scope="module")
def record():
    return searches.run("s2dnas", TINY, profile="test", seed=3)


def test_the_record_tells_each_search_draw_by_draw_and_its_best(record):
    found = record.metrics
    assert found["space"] == {"sizes": 3, "per_size": 4, "architectures": 64}
    assert [of["omega"] for of in found["searches"]] == [-0.07, -0.3]
    for of in found["searches"]:
        drawn = {"policy": 6, "untrained": 6, "random": 6, "every": 64}
        assert {name: len(rewards) for name, rewards in of["rewards"].items()} == drawn
        for name, best in of["best"].items():
            assert best["reward"] == pytest.approx(max(of["rewards"][name]), abs=1e-5)
            worth = reward(best["top1"], best["macs"], found["macs_static"], of["omega"])
            assert best["reward"] == pytest.approx(worth, rel=1e-5)  # of rounded MACs
            assert Config(best["cuts"], best["reuse"]).stages == 2
    assert found["measured"] == 64 and found["clock"] == "processor"
    assert 0 < found["seconds_a_candidate"] < found["candidates_s"]
    assert json.loads(json.dumps(found)) == found
    data = record.dataset
    assert (data["name"], data["train_images"], data["held_out_images"]) == ("scenes", 60, 40)
    assert data["train_sha256"] != data["held_out_sha256"]


def test_one_omega_more_changes_nothing_of_the_others_and_the_seed_repeats_it(record):
    again = searches.run("s2dnas", replace(TINY, omegas=(), ranked=63), profile="test", seed=3).metrics
    assert again["measured"] <= 6 * 3
    for told in ("rewards", "best"):
        kept = record.metrics["searches"][0][told]
        assert again["searches"][0][told] == {name: kept[name] for name in ("policy", "untrained", "random")}
    for name in ("retrained", "found", "kendall_tau"):
        assert again[name] == record.metrics[name]


def test_the_best_and_as_many_random_ones_are_trained_alone_and_the_best_of_the_policy_is_found(record):
    told = record.metrics["retrained"]
    assert [one["by"] for one in told] == ["policy"] * 2 + ["random"] * 2
    assert len({json.dumps((one["cuts"], one["reuse"])) for one in told}) == 4
    rewards = [one["alone"]["reward"] for one in told]
    assert record.metrics["found"]["reward"] == max(rewards[:2])
    place = rewards.index(max(rewards[:2]))
    assert record.metrics["found"]["cuts"] == told[place]["cuts"]


def test_a_search_can_train_every_candidate_by_itself(record):
    asked = replace(TINY, shared_weights=False, candidates=2, omegas=(), ranked=0, retrained=1)
    alone = searches.run("s2dnas", asked, profile="test", seed=3)
    assert alone.curve == [] and alone.metrics["weights_s"] < 1 and alone.metrics["measured"] <= 6
    for one in alone.metrics["retrained"]:  # as long as the first time, on the same data and weights: the same network
        assert one["reward"] == one["alone"]["reward"]


def test_a_search_is_saved_once_and_then_read(record, tmp_path, monkeypatch):
    monkeypatch.setattr(searches, "run", lambda *args, **kw: record)
    assert searches.ensure("s2dnas", TINY, profile="test", seed=3, folder=tmp_path) == record
    monkeypatch.setattr(searches, "run", None)
    assert searches.ensure("s2dnas", TINY, profile="test", seed=3, folder=tmp_path) == record
    assert searches.recorded("s2dnas", TINY, profile="test", seed=4, folder=tmp_path) is None


def test_the_command_line_prints_what_to_train(record, monkeypatch, capsys):
    monkeypatch.setattr(searches, "run", lambda *args, **kw: record)
    assert main(["search", "s2dnas"]) == 0
    cuts, reuse = (json.dumps(record.metrics["found"][name]) for name in ("cuts", "reuse"))
    assert capsys.readouterr().out.strip() == f"-p 'cuts={cuts}' -p 'reuse={reuse}'"
    assert main(["search", "octconv"]) == 2
    assert "method with a search 'octconv' is unknown; allowed: s2dnas" in capsys.readouterr().err
    assert main(["search", "s2dnas", "-p", "omga=-0.1"]) == 2
    assert "allowed: omega" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"dataset": "scene"}, "dataset 'scene' is unknown"),
        ({"proxy_arch": "resnet"}, "arch 'resnet' is unknown"),
        ({"candidates": 0}, "candidates is 0"),
        ({"proxy_held_out_images": 13}, "proxy_held_out_images is 13; it is a multiple of the 10 classes"),
        ({"omega": 0.1}, "omega is 0.1; it is 0 or less"),
        ({"omegas": (float("nan"),)}, "omega is nan"),
        ({"search_stages": 1}, "stages is 1"),
        ({"proxy_epochs": 0}, "epochs is 0"),
        ({"retrain_epochs": 0}, "epochs is 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_any_work(kw, message):
    with pytest.raises(InputError, match=message):
        replace(TINY, **kw)
