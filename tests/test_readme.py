"""The results in the README are those of the records, and its example runs."""

import re

import pytest
import torch
import torchvision

from dynlib import paths
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.book import cli, report
from dynlib.errors import InputError
from dynlib.papers import METHODS
from dynlib.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_the_readme_are_those_of_the_records():
    assert report.renewed(README) == README, "renew them: python -m dynlib verdicts --write"
    assert README.count("<!-- end -->") == 2


def test_a_readme_without_a_place_for_a_table_and_one_that_is_no_text_are_refused(tmp_path, monkeypatch):
    for content, words in ((README.replace("<!-- status -->", "").encode(), "0 places"), (b"\xff", "cannot be read")):
        (tmp_path / "README.md").write_bytes(content)
        monkeypatch.setattr(paths, "ROOT", tmp_path)
        monkeypatch.setattr(paths, "write_atomically", lambda path, content: pytest.fail("written"))
        with pytest.raises(InputError, match=words):
            cli.verdicts(None, write=True)


def test_the_comparison_of_the_readme_has_every_method_once_at_least():
    frame = report.contenders()
    told = {key for key, name in zip(frame.key, frame.name, strict=True) if f"| {name}; " in README}
    assert told == METHODS.keys()


def test_the_example_in_the_readme_runs(monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    small = source.replace('resnet50(weights="DEFAULT")', "resnet18()").replace("resnet50", "resnet18")
    assert small.count("resnet18") == 2
    monkeypatch.setattr(torchvision.models, "resnet18", lambda: CifarResNet(8, width=8))
    scope: dict = {}
    exec(small.replace("224, 224", "32, 32"), scope)  # noqa: S102  the page's own example
    torch.testing.assert_close(scope["logits"], scope["octave"](scope["example"]), rtol=1e-4, atol=1e-4)
