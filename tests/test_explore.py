"""Explorers: what a notebook keeps of a chart with sliders."""

import base64
import json
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest

from dynlib.book import explore
from dynlib.errors import InputError


@pytest.fixture(scope="module")
def explorer():
    level = explore.slider("level", "level", 2, 0, 3, 1)
    dots = alt.Chart(pd.DataFrame({"x": [1, 2, 3]})).mark_point().encode(x="x:Q").transform_filter("datum.x <= level")
    return explore.Explorer(explore.panels(dots, level=level), "two <dots>", "Move & look.", "explore-dots")


@pytest.fixture(scope="module")
def html(explorer):
    return explorer._repr_html_()


def test_without_scripts_a_picture_with_a_text_is_seen(html):
    (address,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]*)" alt="two &lt;dots&gt;">', html)
    drawn = base64.b64decode(address).decode()
    assert drawn.startswith("<svg") and "currentColor" in drawn


def test_the_chart_travels_with_its_data_and_its_slider(html):
    (told,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    spec = json.loads(told)
    (slider,) = [param for param in spec["params"] if param["name"] == "level"]
    assert slider["value"] == 2 and slider["bind"] == {
        "input": "range",
        "min": 0,
        "max": 3,
        "step": 1,
        "name": "level ",
    }
    assert [len(rows) for rows in spec["datasets"].values()] == [3]
    assert "http" not in told


def test_the_caption_is_escaped_and_the_id_can_be_linked_to(html):
    assert 'id="explore-dots"' in html and "<figcaption>Move &amp; look.</figcaption>" in html


def test_a_picture_becomes_an_address_of_its_own():
    grey, colour = explore.data_url(np.zeros((4, 4))), explore.data_url(np.ones((4, 4, 3)), "WEBP")
    assert grey.startswith("data:image/png;base64,") and colour.startswith("data:image/webp;base64,")
    with pytest.raises(InputError, match=r"shape \(4, 4, 2\)"):
        explore.data_url(np.zeros((4, 4, 2)))
