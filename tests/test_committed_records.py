"""Every committed record can still be asked for: its settings, built anew, have its hash and its file name."""

import json
from dataclasses import asdict

import pytest

from dynlib import papers, settings
from dynlib.book import chapters, paperscale, recipes, records, report, runs, searches
from dynlib.cost import parse_size
from dynlib.paths import RESULTS

PATHS = sorted(RESULTS.glob("*/*.json"))


def described(record: records.Record) -> dict:
    """The configuration of a record, from the objects that it was measured with."""
    asked = record.config
    if record.kind == "search":
        return settings.plain(asdict(searches.of_values(record.key, asked)))
    if record.kind not in ("training", "latency"):  # of the split alone: plain values, no object
        return asked
    config = settings.build(papers.method(record.key).Config, asked["method"])
    if record.kind == "training":
        return settings.plain(runs.describe(config, settings.build(recipes.Recipe, asked["recipe"])))
    size = asked["size"] if isinstance(asked["size"], list) else [asked["size"]]
    told = {name: value for name, value in asked.items() if name != "method"}
    told |= {"size": parse_size("x".join(map(str, size)))}
    return paperscale.Timing(**told).described(config)


@pytest.mark.parametrize("key", papers.METHODS)
def test_there_are_trainings_of_every_method_and_each_is_asked_for_by_a_study(key):
    made = {path for path in PATHS if path.parent.name == key and path.stem.startswith("training")}
    assert made and made == set(report.trainings(key).path)


@pytest.mark.parametrize("key", papers.METHODS)
def test_the_public_profile_of_a_chapter_trains_a_row_of_a_study(key):
    chapter, kinds = chapters.of_method(key), (papers.method(key).Config, recipes.Recipe)
    values = {name: parameter.default for name, parameter in chapters.parameters(chapter).items()}
    values |= chapters.profile_values(chapter, "public")
    asked = tuple(settings.build(kind, settings.part_of(kind, values)) for kind in kinds)
    assert asked in [(row.config, row.recipe) for row in report.rows(key)]


def test_the_cost_that_orders_compare_at_is_expected_where_there_are_masks():
    brief = report.trainings("sampling")[lambda frame: frame.study == "brief"]
    assert (brief.cost == brief.macs_expected).all() and (brief.cost < brief.macs).all()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_record_is_found_by_the_settings_it_was_made_with(path):
    record = records.load(path)
    asked = described(record)
    assert json.loads(json.dumps(asked)) == record.config
    assert records.config_hash(asked) == record.config_hash
    assert records.path_of(record) == path
