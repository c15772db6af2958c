"""Settings as typed: what is taken, what is refused, and in which words."""

from dataclasses import dataclass

import pytest

from dynlib import settings
from dynlib.errors import InputError


@dataclass(frozen=True)
class Knobs:
    epochs: int
    lr: float = 0.1
    width: int | None = None
    sizes: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.25", 0.25),
        ("1e-4", 1e-4),
        ("[32, 64]", [32, 64]),
        ("null", None),
        ("true", True),
        ("strided", "strided"),
        ("a=b", "a=b"),
        ("1e", "1e"),
    ],
)
def test_a_value_is_read_as_everybody_means_it(text, value):
    parsed = settings.parse([f"name={text}"])
    assert parsed == {"name": value} and type(parsed["name"]) is type(value)


def test_the_last_of_two_assignments_counts():
    assert settings.parse(["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize("text", ["alpha", "=1", "al pha=1", "alpha=[1,", "alpha: 1"])
def test_what_is_no_assignment_is_refused_in_one_line(text):
    with pytest.raises(InputError) as refusal:
        settings.parse([text])
    assert text in str(refusal.value) and "\n" not in str(refusal.value)


def test_settings_are_converted_where_they_mean_the_same():
    knobs = settings.build(Knobs, {"epochs": 3, "lr": 1, "width": 8, "sizes": [32, 64]})
    assert knobs == Knobs(3, 1.0, 8, (32, 64)) and type(knobs.lr) is float


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 1.5}, r"epochs is 1.5; allowed: int"),
        ({"epochs": True}, r"epochs is True; allowed: int"),
        ({"epochs": 1, "lr": "fast"}, r"lr is 'fast'; allowed: float"),
        ({"epochs": 1, "width": "wide"}, r"width is 'wide'; allowed: int \| None"),
        ({"epochs": 1, "sizes": 32}, r"sizes is 32; allowed: tuple\[int, ...\], such as \[1, 2\]"),
        ({"epochs": 1, "sizes": [32, "x"]}, r"sizes is \[32, 'x'\]; allowed: tuple\[int, ...\], such as \[1, 2\]"),
        ({"lr": 0.1}, r"setting epochs has no value; give epochs=..."),
        ({"epochs": 1, "widht": 8}, r"setting 'widht' is unknown; allowed: width, .*"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(values, words):
    with pytest.raises(InputError, match=f"^{words}$"):
        settings.build(Knobs, values)


def test_a_file_that_holds_no_names_is_refused(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="write one `name: value` a line"):
        settings.read(path)
