"""The path of one number that the protocol tells: every station is there, and leads to the next."""

import re
import shlex

import pytest

from dynlib import papers, settings
from dynlib.book import paperscale, records, report
from dynlib.paths import BOOK, NOTEBOOKS, RESULTS, ROOT

PAGE = (BOOK / "protocol.md").read_text(encoding="utf-8")
WALK = PAGE[PAGE.index("(followed)=") : PAGE.index("(records)=")]


def found(pattern) -> str:
    (only,) = set(re.findall(pattern, WALK))
    return only


def test_the_cell_is_of_the_record_and_the_record_of_the_command():
    assert found(r"#(tab-[\w-]+)") in (NOTEBOOKS / "02_octconv.ipynb").read_text(encoding="utf-8")
    record = records.load(RESULTS.parent.parent / found(r"data/results/\S+\.json"))
    command = shlex.split(found(r"`python -m dynlib latency (octconv .*)`"))
    key, told = command[0], dict(zip(command[1::2], command[2::2], strict=False))
    method = settings.build(papers.method(key).Config, settings.parse([told["-p"]]))
    asked = (told["--arch"], (int(told["--size"]),) * 2, int(told["--batch"]), int(told["--threads"]))
    assert paperscale.Timing(*asked).described(method) == record.config
    (line,) = report.latencies(key).query("alpha == 0.5 and arch == 'resnet50' and batch == 1").itertuples()
    assert line.record == record and line.speedup == record.metrics["speedup"]


def test_make_latency_runs_that_command():
    command = found(r"`python -m dynlib latency (octconv .*) --threads 1 --record`")
    assert f'"{command}"' in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_line_bears_the_tag_of_its_equation():
    path, tag = found(r"`(dynlib/\S+\.py)`"), found(r"`(# eq-octconv, .*)`")
    assert tag in (ROOT / path).read_text(encoding="utf-8")
    for label in set(re.findall(r"\{eq\}`([\w-]+)`", WALK)):
        assert f"({label})" in (NOTEBOOKS / "02_octconv.ipynb").read_text(encoding="utf-8")


def test_the_test_of_the_line_is_there():
    assert f"def {found(r'`(test_the_.*)`')}(" in (ROOT / found(r"`(tests/\S+\.py)`")).read_text(encoding="utf-8")


@pytest.mark.parametrize("key", papers.METHODS)
def test_what_is_recalled_are_other_methods_own_figures(key):
    assert set(report.claims(key).query("confidence == 'recalled'").table) <= {"cross_check_thinet"}
