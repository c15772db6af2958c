"""The survey of what converts: the committed tables are of one another, and some networks are tried anew."""

import pytest
import torch

from dynlib.book.zoo import coverage
from dynlib.papers import METHODS
from dynlib.paths import SURVEYS

FOUND = coverage.read()
SMALL = ("mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "resnet18")


def test_the_tables_are_those_of_the_findings(tmp_path):
    coverage.tables(tmp_path, FOUND)
    for path in sorted(tmp_path.iterdir()):
        assert path.read_text(encoding="utf-8") == (SURVEYS / path.name).read_text(encoding="utf-8"), path.name


def test_every_network_was_tried_by_every_method_once():
    tried = [(found.library, found.network, found.method) for found in FOUND]
    networks = dict.fromkeys((found.library, found.network) for found in FOUND)
    assert tried == [(*network, key) for network in networks for key in METHODS]
    assert sum(library == "torchvision" for library, _ in networks) == 63
    assert [name for library, name in networks if library == "timm"] == list(coverage.TIMM)


def test_whatever_is_refused_is_told_in_a_line_and_in_a_few_words():
    for found in FOUND:
        assert "\n" not in found.refusal and len(found.refusal) <= 300
        assert len(coverage.reason(found.refusal)) <= 60, found


@pytest.mark.parametrize("name", SMALL)
def test_the_committed_findings_are_what_the_library_finds(name):
    network = coverage.on_meta(lambda: coverage.build(name))
    torch.manual_seed(0)
    found = [coverage.tried("torchvision", name, network, key) for key in METHODS]
    assert found == [row for row in FOUND if (row.library, row.network) == ("torchvision", name)]
