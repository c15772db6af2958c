"""The book as one PDF: its pages in the order of the contents, links within it, printed where a browser is."""

import shutil

import pytest

from dynlib import paths
from dynlib.book import pdf
from dynlib.errors import InputError

PAGE = '<html><head></head><body><article class="bd-article">{}</article></body></html>'


@pytest.fixture
def site(tmp_path, monkeypatch):
    (tmp_path / "_toc.yml").write_text("root: intro\nchapters:\n  - file: notebooks/a\n")
    monkeypatch.setattr(paths, "BOOK", tmp_path)
    (tmp_path / "notebooks").mkdir()
    cover = '<p>Cover. <a href="notebooks/a.html">A</a> <a href="notebooks/a.html#eq">1</a> <a href="https://b.c">out</a></p>'
    (tmp_path / "intro.html").write_text(PAGE.format(cover))
    chapter = '<p id="eq"><a href="#eq">here</a><a href="../intro.html">back</a></p>'
    chapter += '<img src="../_images/i.png"><details>x</details>'
    (tmp_path / "notebooks" / "a.html").write_text(PAGE.format(chapter))
    return tmp_path


def test_links_between_pages_become_links_within_the_one(site):
    whole = pdf.joined(site)
    links = ['href="#page-notebooks/a"', 'href="#eq"', 'href="https://b.c"', 'href="#page-intro"']
    assert [link for link in links if link not in whole] == []
    assert 'id="page-notebooks/a"' in whole and 'id="page-intro"' in whole
    assert whole.index("Cover.") < whole.index('id="eq"')


def test_pictures_are_found_and_folds_are_open(site):
    whole = pdf.joined(site)
    assert 'src="_images/i.png"' in whole and "<details open>x</details>" in whole


def test_a_page_that_is_not_built_is_named(site):
    (site / "notebooks" / "a.html").unlink()
    with pytest.raises(InputError, match=r"notebooks/a is not built; run `make book` first"):
        pdf.joined(site)


def test_pages_that_are_not_there_and_a_folder_to_write_are_named_before_a_browser_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(InputError, match="is not built; run `make book` first"):
        pdf.write(tmp_path / "book.pdf", tmp_path / "nowhere")
    with pytest.raises(InputError, match="it is a folder; give the name of a file"):
        pdf.write(tmp_path, tmp_path / "nowhere")


def test_without_a_browser_one_line_says_which_would_do(site, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="no browser is installed that prints; one of chromium"):
        pdf.write(site / "book.pdf", site)


@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="no Chromium is installed")
def test_a_browser_prints_all_pages_into_one_file(site):
    out = pdf.write(site / "book.pdf", site)
    assert out.read_bytes().startswith(b"%PDF") and out.stat().st_size > 1000
    assert sorted(path.suffix for path in site.iterdir() if path.is_file()) == [".html", ".pdf", ".yml"]
