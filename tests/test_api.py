"""The page of the library's names follows the code."""

import re

import pytest

from dynlib.book import api
from dynlib.papers import METHODS, octconv


@pytest.fixture(scope="module")
def page():
    return api.page()


def test_every_method_has_its_four_names_and_every_name_words(page):
    for key in METHODS:
        part = page.partition(f"`dynlib.papers.{key}`")[2].partition("\n## ")[0]
        assert re.findall(r"\{dropdown\} `(\w+)`", part)[:4] == ["Config", "convert", "cost", "deploy"]
    entries = re.findall(r"^:::\{dropdown\} (.*)$", page, re.MULTILINE)
    assert len(entries) > 40
    assert [entry for entry in entries if not re.fullmatch(r"`[\w.]+`: .*[.:,;)]", entry)] == []


def test_a_field_stands_with_its_comment_and_no_word_of_the_docstring(page):
    shown = api.fields(octconv.Config)
    assert "alpha: float = 0.5" in shown and "share of low-frequency channels" in shown
    assert octconv.Config.__doc__.split()[0] not in shown and "__post_init__" not in shown


def test_code_is_as_wide_as_the_page_at_most(page):
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 30
    assert [line for block in blocks for line in block.splitlines() if len(line) > api.WIDTH] == []


def test_a_section_of_a_docstring_becomes_a_list():
    text = api.prose("Does it.\n\nArgs:\n    size: in pixels,\n        or a pair.\n\nRaises:\n    InputError: none.")
    assert "**Args:**\n\n- `size`: in pixels,\nor a pair." in text and "- `InputError`: none." in text


def test_a_signature_is_as_written():
    assert api.signature("convert", octconv.convert).splitlines()[:2] == ["convert(", "    model: nn.Module,"]
