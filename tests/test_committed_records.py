"""Every committed record can still be asked for: its settings, built anew, have its hash and its file name."""

import json
from dataclasses import asdict

import pytest

from dynlib import papers, settings
from dynlib.book import paperscale, recipes, records, runs, searches
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
        return settings.plain(runs.describe(config, recipes.recipe_of(asked["recipe"])))
    size = asked["size"] if isinstance(asked["size"], list) else [asked["size"]]
    shares = tuple(asked["shares"]) if "shares" in asked else None
    return paperscale.describe_latency(
        config, asked["arch"], parse_size("x".join(map(str, size))), asked["batch"], asked["threads"], shares
    )


def test_there_are_records_of_every_method():
    assert {path.parent.name for path in PATHS} == papers.METHODS.keys()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_record_is_found_by_the_settings_it_was_made_with(path):
    record = records.load(path)
    asked = described(record)
    assert json.loads(json.dumps(asked)) == record.config
    assert records.config_hash(asked) == record.config_hash
    assert records.path_of(record) == path
