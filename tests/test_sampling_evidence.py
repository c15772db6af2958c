"""The runs that the chapter compares: those that the profile and the command line make."""

from itertools import pairwise

import pytest

from dynlib import settings
from dynlib.book import chapters, recipes
from dynlib.book.legacy import sampling_evidence as evidence
from dynlib.papers import sampling


@pytest.mark.parametrize("task", evidence.RECIPES)
@pytest.mark.parametrize("name", evidence.RUNS)
def test_the_command_of_a_run_makes_the_run(task, name):
    words = evidence.command(task, name, 2).split()
    given = settings.parse(value for flag, value in pairwise(words) if flag == "-p")
    values = chapters.profile_values("04_sampling", "public") | given
    config, recipe = (
        settings.build(kind, settings.part_of(kind, values)) for kind in (sampling.Config, recipes.Recipe)
    )
    assert config == sampling.Config(**{"gamma": evidence.GAMMA, "sigma": evidence.SIGMA} | evidence.RUNS[name])
    assert recipe.task.name == task and words[-2:] == ["--seed", "2"]


def test_no_two_runs_are_one():
    configs = [
        sampling.Config(**{"gamma": evidence.GAMMA, "sigma": evidence.SIGMA} | fields)
        for fields in evidence.RUNS.values()
    ]
    assert len(set(configs)) == len(configs) and sampling.Config(gamma=evidence.GAMMA, sigma=evidence.SIGMA) in configs


def test_exhibits_name_runs_that_their_task_is_asked_for():
    for task, _, rows, said in evidence.EXHIBITS:
        assert set(rows.values()) <= evidence.configs(task).keys() and said


def test_what_is_missing_has_its_command_once():
    found = {"segmentation": {"dense": [1], "zeros": [], "reuse": []}, "detection": {"dense": [1]}}
    exhibit = evidence.Exhibit("segmentation", "", {"one": "dense", "two": "zeros", "three": "zeros"}, "in words")
    lines = evidence.missing(found).splitlines()
    commands = [line.replace("train", evidence.TRAIN, 1) for line in lines[4:-1]]
    assert evidence.TRAIN in lines[3]
    assert commands == [evidence.command("segmentation", name) for name in ("zeros", "reuse")]
    claimed, note = evidence.notes(found["segmentation"], exhibit)
    assert "in words" in claimed and "below" in note
    whole = found | {"segmentation": {"dense": [1]}}
    assert evidence.missing(whole) == "" and len(evidence.notes({"dense": [1], "zeros": [1]}, exhibit)) == 1
