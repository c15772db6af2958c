"""Accuracy kept: paired by seed on common ground, timed where a record has the very setting; and claims with proofs."""

import importlib
from types import SimpleNamespace

import pandas as pd
import pytest

from dynlib import settings
from dynlib.book import report
from dynlib.book.report.table import Linked
from dynlib.papers import METHODS
from dynlib.paths import NOTEBOOKS, RESULTS

module = importlib.import_module("dynlib.book.report.kept")  # the package has a function of the name


def test_what_a_method_keeps_is_paired_with_the_plain_network_by_seed():
    frame = report.trainings("octconv")
    frame = frame[frame.study == module.STUDY].set_index(["row", "seed"])
    (half,) = report.kept().query("key == 'octconv' and row == 'alpha 0.5'").itertuples()
    differences = (frame.top1["alpha 0.5"] - frame.top1["vanilla"]).dropna()
    assert half.points == pytest.approx(differences.mean()) and half.seeds == len(differences) >= 3
    assert half.low < half.points < half.high < 0 and half.verdict == "contradicted"
    assert half.macs == pytest.approx(25952896 / 40551040)


def test_a_setting_that_was_timed_on_the_common_network_has_its_milliseconds(monkeypatch):
    (row,) = [row for row in report.rows("octconv", module.STUDY) if row.name == "alpha 0.5"]
    timed = {"arch": module.NETWORK, "size": module.SIZE, "batch": 1, "static_ms": 3.0, "method_ms": 2.0}
    config = {"method": settings.described(row.config)}
    lines = [timed | {"record": SimpleNamespace(config=config)}, timed | {"arch": "other", "static_ms": 1.0}]
    none = pd.DataFrame(columns=list(lines[0]))
    monkeypatch.setattr(module, "latencies", lambda key: pd.DataFrame(lines) if key == "octconv" else none)
    assert report.kept().set_index("row").ms.dropna().to_dict() == {"alpha 0.5": 2.0}
    assert report.plain_ms() == 3.0
    config["shares"] = [0.5, 0.5]  # its time hangs on what it chooses, which training settles
    assert report.kept().ms.isna().all()


def test_what_papers_print_is_read_from_their_claims():
    told = report.published().set_index("name")
    assert told.points["octaves, half low"] == pytest.approx(0.003)
    assert told.macs["octaves, half low"] == pytest.approx(2.4 / 4.1)
    assert told.points["wavelet split"] == pytest.approx(-0.0022), "a larger error is a loss"


@pytest.mark.parametrize("key", METHODS)
def test_every_claim_leads_to_the_records_behind_its_verdict(key):
    shown, proofs = report.judged(key), report.proofs(key)
    assert list(shown.claim) == list(proofs.claim) == list(report.orders(key).claim)
    assert {verdict.href for verdict in shown.verdict} == {f"#{report.proofs_at(key)}"}
    (chapter,) = NOTEBOOKS.glob(f"*_{key}.ipynb")
    assert f'report.proofs_at(\\"{key}\\")' in chapter.read_text(encoding="utf-8")
    cells = [part for side in proofs.columns[1:] for cell in proofs[side] for part in cell]
    links = [part.href for part in cells if isinstance(part, Linked)]
    assert all((RESULTS / href.removeprefix("../records/")).is_file() for href in links)
    trained = report.trainings(key)
    assert bool(links) == bool(len(trained)) and not shown.isna().all().any()
