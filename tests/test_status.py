"""Every table and figure of the papers has a verdict, and every verdict a proof that is there."""

import json
import re

import pandas as pd
import pytest

from dynlib.book import report
from dynlib.book.report.status import COLUMNS, EXACTLY, VERDICTS, faster, status, tables
from dynlib.book.report.table import rounded
from dynlib.errors import InputError
from dynlib.papers import METHODS
from dynlib.papers.octconv import ops
from dynlib.paths import NOTEBOOKS, ROOT

LINES = list(tables().itertuples(index=False))


def source(chapter) -> str:
    cells = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def test_every_paper_has_tables_and_every_line_one_of_the_verdicts():
    found = status()
    assert set(found.key) == METHODS.keys() and set(found.verdict) <= set(VERDICTS)
    assert not found.duplicated(["key", "table", "part"]).any()


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.key}, {line.table}, {line.part}")
def test_the_proof_of_a_line_exists_and_its_page_has_the_anchor(line):
    chapter, _, anchor = line.page.partition("#")
    text, (kind, _, proof) = source(chapter), line.proof.partition(": ")
    assert f"({anchor})=" in text or f'"{anchor}"' in text or f"{line.key}-{{table}}" in text
    if kind == "page":
        assert re.search(rf'expect\(\s*"{re.escape(proof)}"', text)
    if kind == "test":
        file, _, name = proof.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    if kind == "orders":
        assert set(proof.split("|")) <= set(report.orders(line.key).id)
    if kind == "latency":
        assert len(report.latencies(line.key).query(proof))


def test_every_table_with_claims_has_a_status():
    """A short name in the claims, table1, is written out here, Table 1."""
    for key in METHODS:
        known = " ".join(tables().query("key == @key").table).replace("Table ", "table").replace("Figure ", "fig")
        claimed = {re.match(r"(table|fig)\d+", name) for name in report.claims(key).table}
        assert [name[0] for name in claimed if name and name[0] not in known] == []


def test_a_method_is_faster_where_both_quartiles_are_on_its_side_in_every_record():
    assert faster([(1.1, 1.2), (1.3, 1.4)]) == "supported"
    assert faster([(1.1, 1.2), (0.8, 0.9)]) == "contradicted"
    assert faster([(0.9, 1.2), (1.3, 1.4)]) == "undecided"
    assert faster([]) == "not tested"


def test_a_line_without_a_proof_for_its_verdict_is_refused(tmp_path):
    lines = [["drnet", "Table 1", "costs", EXACTLY, "", "05_drnet#drnet-answer"]]
    pd.DataFrame(lines, columns=COLUMNS).to_csv(tmp_path / "tables.csv", index=False)
    with pytest.raises(InputError, match="Table 1, costs has the verdict 'regenerated exactly' and the proof ''"):
        tables(tmp_path)


def test_the_shares_of_one_octave_layer_are_those_of_table_1_but_for_its_slip():
    for claim in report.claims("octconv", "table1").itertuples():
        alpha = float(claim.row.removeprefix("one layer, alpha "))
        ours = {"macs_ratio": ops.macs_ratio(alpha, alpha), "memory_ratio": ops.memory_ratio(alpha)}[claim.metric]
        assert (rounded(ours, claim.unit, claim.value) == claim.value) != ("slip of the paper" in claim.note)
