"""What generic code may ask of every paper's package, with the defaults of the hooks that a method lacks."""

import dataclasses
import importlib
from dataclasses import fields
from pathlib import Path

import pytest

from dynlib.papers import METHODS, Method, method

each_key = pytest.mark.parametrize("key", METHODS)


@each_key
def test_a_config_is_frozen_and_has_a_value_for_every_field(key):
    config = method(key).Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, fields(config)[0].name, None)


@each_key
def test_a_method_offers_what_its_package_exports_and_defaults_besides(key):
    package, offered = importlib.import_module(f"dynlib.papers.{key}"), method(key)
    for field in fields(Method):
        exported = getattr(package, field.name, field.default)
        assert getattr(offered, field.name) is exported


@each_key
def test_a_package_tells_its_idea_its_files_and_its_departures(key):
    package = importlib.import_module(f"dynlib.papers.{key}")
    assert "Departures from the paper, each with its reason:" in package.__doc__
    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    assert [name for name in sorted(files) if name not in package.__doc__] == []
