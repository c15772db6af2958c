"""What built pages need besides Sphinx to work from a folder, without a server: Vega, texts for the search.

A browser lets no page read another file of a folder, so the search could not show where a word stands. All texts
therefore lie in one script, `_static/texts.js`, which the search page alone loads (`book/_static/offline_search.js`).
"""

import json
import re
from pathlib import Path

ARTICLE = re.compile(r"<article\b.*?</article>", re.DOTALL)
UNREAD = re.compile(r"<(script|style|svg|noscript)\b.*?</\1>|<img\b[^>]*>|<!--.*?-->", re.DOTALL)
ICONS = re.compile(r'<script src="[^"]*fontawesome\.js[^"]*"></script>')  # 1.5 MB: the theme has them as a font, too
LOOKS = re.compile(r'\s(?:class|style|href|title|tabindex|scope|rel|role|(?:data|aria)-[\w-]+)="[^"]*"')


def finish(site: Path) -> None:
    """Write Vega and the texts of all pages into the `_static` folder of a built site; load icons once, as a font."""
    from dynlib.book import explore

    for page in site.rglob("*.html"):
        page.write_text(ICONS.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")
    pages = {page.relative_to(site).as_posix(): text(page) for page in sorted(site.rglob("*.html"))}
    (site / "_static" / "vega.js").write_text(explore.vega(), encoding="utf-8")
    told = json.dumps({name: of for name, of in pages.items() if of}, ensure_ascii=False)
    (site / "_static" / "texts.js").write_text(f"window.pageTexts = {told};\n", encoding="utf-8")


def text(page: Path) -> str:
    """The article of a page as HTML with ids but without looks, pictures and scripts; empty where there is none."""
    found = ARTICLE.search(page.read_text(encoding="utf-8"))
    return LOOKS.sub("", UNREAD.sub("", found[0])) if found else ""
