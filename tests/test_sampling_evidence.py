"""The runs that the chapter compares: those that the profile and the command line make."""

from itertools import pairwise

import pytest

from dynlib import chapters, runs, settings
from dynlib.papers import sampling
from dynlib.papers import sampling_evidence as evidence


@pytest.mark.parametrize("task", evidence.RECIPES)
@pytest.mark.parametrize("name", evidence.RUNS)
def test_the_command_of_a_run_makes_the_run(task, name):
    words = evidence.command(task, name, 2).split()
    given = settings.parse(value for flag, value in pairwise(words) if flag == "-p")
    values = chapters.profile_values("04_sampling", "public") | given
    config, recipe = (settings.build(kind, settings.part_of(kind, values)) for kind in (sampling.Config, runs.Recipe))
    assert config == sampling.Config(**{"gamma": evidence.GAMMA} | evidence.RUNS[name])
    assert recipe.task.name == task and words[-2:] == ["--seed", "2"]


def test_no_two_runs_are_one():
    configs = [sampling.Config(**{"gamma": evidence.GAMMA} | fields) for fields in evidence.RUNS.values()]
    assert len(set(configs)) == len(configs) and sampling.Config(gamma=evidence.GAMMA) in configs
