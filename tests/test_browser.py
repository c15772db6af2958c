"""The built pages in a real browser: nothing is cut off, pale, broken or fetched, and every explorer moves.

Needs Playwright and a Chromium that is installed; skipped elsewhere.
"""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from dynlib.paths import BOOK, ROOT

HTML = ROOT / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AUDIT = Path(__file__).with_name("browser_audit.js").read_text(encoding="utf-8")
EXPLORERS = {
    "explore-wae": "01_wae",
    "explore-octconv": "02_octconv",
    "explore-s2dnas": "03_s2dnas",
    "explore-sampling": "04_sampling",
    "explore-drnet": "05_drnet",
    "explore-budget": "06_comparison",
}
SCREEN = 900  # px

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(not (HTML / "index.html").exists(), reason="no built pages: run `make book`"),
]


def pages() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(entry["file"] for entry in toc["chapters"])]


each_page = pytest.mark.parametrize("name", pages())
each_explorer = pytest.mark.parametrize("name", EXPLORERS)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


def opened(browser, name, width, told=None, query="", **options):
    """A page of the site, typeset; `told` collects errors of the console, and addresses of files and of others."""
    page = browser.new_context(viewport={"width": width, "height": SCREEN}, **options).new_page()
    if told is not None:
        page.on("console", lambda m: told["errors"].append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told["errors"].append(str(error)))
        page.on("request", lambda request: told["requests"].append(request.url))
    page.goto((HTML / f"{name}.html").as_uri() + query)
    if options.get("java_script_enabled", True):
        page.evaluate("window.MathJax?.startup?.promise")
        page.wait_for_function("!document.querySelector('figure.explorer:not(.live)')")
    return page


@pytest.fixture(scope="module")
def visit(browser):
    """Everything that is seen of a page, at three widths, light and dark: two loadings, whoever asks."""
    known = {}

    def look(name):
        if name not in known:
            told = {"errors": [], "requests": [], "audits": {}}
            for widths in ((1300, 820), (390,)):
                page = opened(browser, name, widths[0], told)
                page.add_style_tag(content="* { transition: none !important }")
                for width in widths:
                    page.set_viewport_size({"width": width, "height": SCREEN})
                    for scheme in ("light", "dark"):
                        page.emulate_media(color_scheme=scheme)
                        page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
                        told["audits"][width, scheme] = page.evaluate(AUDIT)
                page.context.close()
            known[name] = told
        return known[name]

    return look


def found(told, what):
    """What one part of the audits has found, by width and scheme, without empty lists."""
    return {at: audit[what] for at, audit in told["audits"].items() if audit[what]}


@each_page
def test_opening_a_page_is_silent_and_asks_nobody_outside(visit, name):
    told = visit(name)
    assert told["errors"] == []
    assert [address for address in told["requests"] if urlsplit(address).scheme not in ("file", "data", "blob")] == []


@each_page
def test_code_tables_and_pictures_are_whole_or_scroll_in_a_box_that_has_the_focus(visit, name):
    assert found(visit(name), "clipped") == {}
    assert found(visit(name), "wide") == {}


@each_page
def test_no_equation_lies_under_its_number(visit, name):
    assert found(visit(name), "covered") == {}


@each_page
def test_every_text_stands_out_from_its_ground(visit, name):
    assert found(visit(name), "pale") == {}


@each_page
def test_a_page_weighs_at_most_three_megabytes_without_mathjax(visit, name):
    files = {Path(unquote(urlsplit(url).path)) for url in visit(name)["requests"] if url.startswith("file:")}
    weight = sum(path.stat().st_size for path in files if "mathjax" not in path.parts)
    assert 10_000 < weight <= 3_000_000


@pytest.mark.parametrize("name", [name for name in pages() if name.startswith("notebooks/")])
def test_a_chapter_takes_at_most_twelve_screens(visit, name):
    assert visit(name)["audits"][1300, "light"]["height"] <= 12 * SCREEN


@each_page
def test_every_link_within_the_site_ends_at_a_place_that_is_there(name):
    path = HTML / f"{name}.html"
    broken = []
    for address in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', path.read_text(encoding="utf-8")):
        target = urlsplit(address)
        if target.scheme or target.netloc:
            continue
        page = (path.parent / unquote(target.path)).resolve() if target.path else path
        anchor = unquote(target.fragment)
        if not page.exists() or (anchor and f'id="{anchor}"' not in page.read_text(encoding="utf-8")):
            broken.append(address)
    assert broken == []


def test_the_search_finds_a_word_and_shows_where_it_stands_without_a_server(browser):
    told = {"errors": [], "requests": []}
    page = opened(browser, "search", 1300, told, "?q=octave")
    page.wait_for_function("document.querySelectorAll('ul.search li p.context').length > 2")
    texts = page.locator("ul.search li p.context").all_inner_texts()
    assert sum("octave" in text.lower() for text in texts) > 2
    assert told["errors"] == []
    page.context.close()


def test_every_explorer_stands_once_on_its_page_and_the_budget_on_the_cover():
    for name, page in [*EXPLORERS.items(), ("explore-budget", "00_cover")]:
        text = (HTML / "notebooks" / f"{page}.html").read_text(encoding="utf-8")
        assert text.count(f'<figure class="explorer" id="{name}">') == 1, (name, page)


@each_explorer
@pytest.mark.parametrize("width", [390, 1300])
def test_every_knob_of_an_explorer_moves_marks_and_numbers_by_keyboard(browser, name, width):
    told = {"errors": [], "requests": []}
    page = opened(browser, f"notebooks/{EXPLORERS[name]}", width, told)
    chart = page.locator(f"#{name} svg")
    assert chart.bounding_box()["width"] <= width
    for knob in page.locator(f"#{name} .vega-bind").all():
        before = chart.inner_html()
        inputs = knob.locator("input")
        kind = inputs.first.get_attribute("type")
        at = knob.locator("input:checked").first if kind == "radio" else inputs.first
        at.focus()
        page.keyboard.press("Space" if kind == "checkbox" else "ArrowLeft")
        page.wait_for_function(
            "([name, before]) => document.querySelector(`#${name} svg`).innerHTML !== before", arg=[name, before]
        )
        assert knob.inner_text().strip(), "a knob says what it moves"
    assert page.locator(f"#{name} .vega-bind").count() > 0
    assert told["errors"] == []
    page.context.close()


@each_explorer
def test_where_scripts_are_off_an_explorer_is_a_picture(browser, name):
    page = opened(browser, f"notebooks/{EXPLORERS[name]}", 1300, java_script_enabled=False)
    picture = page.locator(f"#{name} img")
    assert picture.is_visible() and picture.bounding_box()["height"] > 100
    assert len(picture.get_attribute("alt")) > 40
    page.context.close()
