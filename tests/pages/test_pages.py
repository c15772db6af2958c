"""The built pages, as a reader without network opens them. `make test` builds them first."""

import re
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from dynlib.paths import BOOK, ROOT

HTML = ROOT / "_build" / "html"
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}  # when a page opens
RESIDUE = re.compile(r"Traceback|it/s\]|\d%\|[ █▏▎▍▌▋▊▉#]|█|WARNING|PapermillExecutionError")

pytestmark = pytest.mark.skipif(not (HTML / "index.html").exists(), reason="no built pages: run `make book`")


class Page(HTMLParser):
    """Tags with attributes, and the text, of one page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.hidden = [], "", False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag in ("script", "style")  # neither has tags inside

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        self.text += "" if self.hidden else data


def pages() -> list:
    """Pages of the table of contents, the cover first."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(entry["file"] for entry in toc["chapters"])]


each_page = pytest.mark.parametrize("name", pages())


@each_page
def test_every_image_has_a_text_for_those_who_cannot_see_it_not_the_name_of_its_file(name):
    alts = [(attrs.get("alt") or "").strip() for tag, attrs in Page(HTML / f"{name}.html").tags if tag == "img"]
    assert [alt for alt in alts if not alt or re.search(r"\.(png|svg|jpe?g)$", alt)] == []


@each_page
def test_opening_a_page_fetches_nothing_from_outside_and_nothing_missing(name):
    path = HTML / f"{name}.html"
    for tag, attrs in Page(path).tags:
        address = attrs.get(FETCHED.get(tag, ""))
        if not address or (tag == "link" and attrs.get("rel") in ("next", "prev", "canonical")):
            continue
        target = urlsplit(address)
        assert target.scheme in ("", "data") and not target.netloc, f"{tag} fetches {address}"
        if not target.scheme:
            assert (path.parent / unquote(target.path)).exists(), f"{tag} names {address}, which is not there"


def test_no_style_sheet_fetches_from_outside():
    outside = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//")
    assert [css for css in HTML.glob("_static/**/*.css") if outside.search(css.read_text(encoding="utf-8"))] == []


@each_page
def test_no_page_shows_a_failure_or_a_progress_bar(name):
    assert RESIDUE.search(Page(HTML / f"{name}.html").text) is None


def test_launch_buttons_open_tracked_notebooks():
    tracked = subprocess.run(["git", "ls-files", "notebooks"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    for name in (name for name in pages() if name.startswith("notebooks/")):
        links = [attrs.get("href") or "" for tag, attrs in Page(HTML / f"{name}.html").tags if tag == "a"]
        launches = [unquote(link) for link in links if "mybinder.org" in link]
        assert bool(launches) == bool(address), f"{name}: a launch button stands where the book has an address"
        for link in launches:
            assert re.search(r"notebooks/[\w-]+\.ipynb", link)[0] in tracked.stdout.split(), link
