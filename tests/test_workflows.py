"""CI, a fork's too, runs the commands of `.ci` and no others: what passes here passes there."""

import os
import re
import subprocess

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
    command = ".ci/audit" if path.stem == "audit" else ".ci/run"
    assert [step["run"] for step in steps(path) if "run" in step] == [command]


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


@pytest.mark.parametrize(
    ("status", "says", "expected"),
    [
        (0, "No known vulnerabilities found", 0),
        (1, "Found 1 known vulnerability in 1 package", 1),
        (1, "ConnectionError: no route", 0),
    ],
)
def test_the_audit_fails_for_known_faults_alone_and_says_where_it_could_not_look(tmp_path, status, says, expected):
    (tmp_path / "pipx").write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    (tmp_path / "pipx").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([ROOT / ".ci" / "audit"], env={"PATH": path}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == expected
    assert ("not audited" in done.stdout) == ("route" in says) and (says in done.stderr) == bool(expected)
