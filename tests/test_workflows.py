"""CI, a fork's too, runs the commands of `.ci/run` and no others: what passes here passes there."""

import os
import re

import pytest
import yaml

from dynlib.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RUN = ROOT / ".ci" / "run"


def steps(path) -> list[dict]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [step for job in content["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_the_whole_check_and_nothing_else(path):
    assert [step["run"] for step in steps(path) if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_needs_no_secret_and_no_address_of_ours_so_that_a_fork_can_run_it(path):
    text = path.read_text(encoding="utf-8")
    assert "secrets." not in text and "github.repository ==" not in text


def test_the_check_is_executable_and_calls_targets_that_the_makefile_has():
    assert os.access(RUN, os.X_OK)
    called = re.findall(r"^make (\w+)", RUN.read_text(encoding="utf-8"), re.MULTILINE)
    assert called == ["lint", "book", "test"]
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(called) <= set(targets)
