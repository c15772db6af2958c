"""The comparison: each line from one record, on the network it was timed on, and new lines where records appear."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from dynlib.book import records, report
from dynlib.book.report.contenders import COLUMNS, contenders
from dynlib.errors import InputError
from dynlib.papers import METHODS
from dynlib.paths import CONTENDERS, NOTEBOOKS, RESULTS

module = importlib.import_module("dynlib.book.report.contenders")  # the package has a function of the name
LINE = ["octaves", "ResNet-50, 224 px", "octconv", "arch == 'resnet50' and alpha == 0.5"]


def listed(tmp_path, *lines):
    path = tmp_path / "contenders.csv"
    pd.DataFrame(lines, columns=COLUMNS).to_csv(path, index=False)
    return path


def test_every_method_and_the_plain_network_are_there():
    found = contenders()
    assert set(found.key[found.side == "method"]) == METHODS.keys()
    assert {"eager", "fastest", "smaller"} <= set(found.side)
    assert all((RESULTS / path).is_file() for path in found.path)


def test_orders_and_pages_that_are_named_exist():
    frame = pd.read_csv(CONTENDERS, keep_default_na=False)
    assert set(frame.order.str.removeprefix("-")) - {""} <= set(report.orders().id)
    for chapter, anchor in (page.split("#") for page in frame.page if page):
        assert f"({anchor})=" in (NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8")


def test_the_sides_of_a_record_are_told_apart(tmp_path):
    sides = ("eager", "fastest", "method")
    found = contenders(listed(tmp_path, *([*LINE, "float32", side, "", ""] for side in sides))).set_index("side")
    (run,) = report.latencies("octconv").query(f"{LINE[3]} and batch == 1").itertuples()
    assert found.ms.to_dict() == {"eager": run.variants_ms["eager"], "fastest": run.static_ms, "method": run.method_ms}
    assert found.speedup.to_dict() == pytest.approx(
        {"eager": run.static_ms / run.variants_ms["eager"], "fastest": 1.0, "method": run.speedup}
    )


def test_int8_is_compared_with_the_fastest_form_in_float32_and_appears_with_its_record(tmp_path, monkeypatch):
    lines = listed(tmp_path, *([*LINE, "int8", side, "", ""] for side in ("quantised", "method")))
    monkeypatch.setattr(module, "latencies", lambda key, dtype: report.latencies(key, dtype, folder=tmp_path))
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    assert contenders(lines).empty
    (run,) = report.latencies("octconv").query(f"{LINE[3]} and batch == 1").record
    times = {"variants_ms": {"eager": 9.0, "onnxruntime": 6.0, "onnxruntime_int8": 2.0}, "static_ms": 2.0}
    config = run.config | {"dtype": "int8"}
    new = replace(run, config=config, config_hash=records.config_hash(config))
    records.save(replace(new, metrics=run.metrics | times | {"method_ms": 1.5, "dtype": "int8"}), tmp_path)
    report.latencies.cache_clear()
    assert contenders(lines).set_index("side").speedup.to_dict() == pytest.approx({"quantised": 3.0, "method": 4.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": "both"}, "octaves has the side 'both'; allowed: eager, fastest"),
        ({"query": "arch == 'resnet50'"}, "octaves on ResNet-50, 224 px has \\d+ records; ask for one"),
    ],
)
def test_a_line_that_asks_for_none_or_several_is_refused(tmp_path, change, message):
    line = dict(zip(COLUMNS, [*LINE, "float32", "method", "", ""], strict=True)) | change
    with pytest.raises(InputError, match=message):
        contenders(listed(tmp_path, list(line.values())))


def test_an_order_that_claims_the_opposite_is_turned_round(tmp_path, monkeypatch):
    lines = listed(tmp_path, *([*LINE, "float32", "method", order, ""] for order in ("octconv-half", "-octconv-half")))
    for verdict, turned in (("supported", "contradicted"), ("undecided", "undecided"), ("not tested", "not tested")):
        monkeypatch.setattr(module, "compare", lambda *_, verdict=verdict: SimpleNamespace(verdict=verdict))
        assert list(contenders(lines).verdict) == [verdict, turned]
