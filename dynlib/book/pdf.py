"""The book as one PDF: the built pages one after the other, printed by a browser that is installed."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from dynlib import paths
from dynlib.errors import InputError

ARTICLE = re.compile(r'<article class="bd-article".*?</article>', re.DOTALL)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECTION = '<section class="page" id="{page}">{article}</section>'
LOOK = """<style>
@page { size: A4; margin: 15mm }
html { font-size: 12px !important }
section.page + section.page { break-before: page }
.bd-article h1 { display: block !important }
.bd-sidebar, .bd-sidebar-secondary, .bd-header, .bd-header-article, #jb-print-docs-body, .vega-bindings, .copybtn
{ display: none !important }
.cell, details, pre, div.highlight { break-inside: auto !important }
pre { white-space: pre-wrap !important }
</style>"""


def write(out: Path, site: Path = paths.HTML) -> Path:
    """Print the pages of `site`, in the order of the contents, folds open, and write them to `out`.

    Raises InputError where there are no pages, no browser, or where the browser fails.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise InputError(f"no browser is installed that prints; one of {', '.join(BROWSERS)} is needed")
    paths.check_writable(out)
    content = joined(site)
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=site, encoding="utf-8") as whole:
        whole.write(content)
        whole.flush()
        options = ["--headless", "--no-sandbox", "--no-pdf-header-footer", "--virtual-time-budget=120000"]
        command = [browser, *options, f"--print-to-pdf={out.resolve()}", Path(whole.name).as_uri()]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not out.is_file():
        raise InputError(f"{browser} does not print the book: {(done.stderr.splitlines() or ['no reason'])[-1]}")
    return out


def joined(site: Path) -> str:
    """All pages as one, in the frame of the cover; links between pages become links within it.

    Raises InputError for a page of the contents that is not built.
    """
    toc = yaml.safe_load((paths.BOOK / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"], *(entry["file"] for entry in toc["chapters"])]
    missing = [name for name in names if not (site / f"{name}.html").is_file()]
    if missing:
        raise InputError(f"page {missing[0]} is not built; run `make book` first")
    texts = {name: (site / f"{name}.html").read_text(encoding="utf-8") for name in names}
    sections = [SECTION.format(page=f"page-{name}", article=_article(text, name)) for name, text in texts.items()]
    frame = texts[toc["root"]].replace("</head>", f"{LOOK}</head>")
    return ARTICLE.sub(lambda _: "\n".join(sections), frame, count=1)


def _article(text: str, name: str) -> str:
    """The article of a page, as it stands in the root of the site, with open folds."""
    folder = Path(name).parent
    found = ARTICLE.search(text)[0].replace("<details", "<details open")

    def moved(match: re.Match) -> str:
        attribute, address = match.groups()
        if re.match(r"\w+:|#", address):
            return match[0]
        path, _, anchor = address.partition("#")
        place = Path(os.path.normpath(folder / path))
        inside = anchor or f"page-{place.with_suffix('')}"
        target = f"#{inside}" if place.suffix == ".html" else place.as_posix()
        return f'{attribute}="{target}"'

    return re.sub(r'\b(href|src)="([^"]*)"', moved, found)
