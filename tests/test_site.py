"""What is added to the built pages so that they work from a folder."""

import json

from dynlib.book import explore, site

PAGE = """<script src="_static/scripts/fontawesome.js?digest=1"></script><nav>menu</nav>
<article class="bd-article"><h1 id="top" class="big">Title</h1><script>let x = "code";</script>
<img src="data:image/png;base64,AAAA" alt="picture"><p>A word.</p></article>"""


def test_the_search_is_given_the_words_of_a_page_and_its_anchors_and_nothing_else(tmp_path):
    page = tmp_path / "a.html"
    page.write_text(PAGE)
    assert site.text(page).split() == ["<article><h1", 'id="top">Title</h1>', "<p>A", "word.</p></article>"]
    page.write_text("<p>no article</p>")
    assert site.text(page) == ""


def test_a_finished_site_has_vega_and_all_texts_and_loads_icons_as_a_font(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "vega", lambda: "// Vega")
    (tmp_path / "_static").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.html").write_text(PAGE)
    (tmp_path / "genindex.html").write_text("<p>no article</p>")
    site.finish(tmp_path)
    told = (tmp_path / "_static" / "texts.js").read_text().removeprefix("window.pageTexts = ").removesuffix(";\n")
    assert list(json.loads(told)) == ["notebooks/a.html"]
    assert (tmp_path / "_static" / "vega.js").read_text() == "// Vega"
    assert "fontawesome" not in (tmp_path / "notebooks" / "a.html").read_text()


def test_vega_keeps_its_names_to_itself():
    assert explore.vega().startswith("(() => {") and "window.vegaEmbed=" in explore.vega()
