"""A new paper's files, from the folder `template`: they run, and their tests fail until they are filled in."""

import keyword
import re
from pathlib import Path

from dynlib import paths
from dynlib.errors import InputError
from dynlib.papers import METHODS

FILES = {  # in template/: where it goes
    "paper/__init__.py": "dynlib/papers/{key}/__init__.py",
    "paper/convert.py": "dynlib/papers/{key}/convert.py",
    "test_paper.py": "tests/test_{key}.py",
    "claims.csv": "data/claims/{key}.csv",
    "studies.yml": "data/studies/{key}.yml",
    "chapter.ipynb": "notebooks/{number:02d}_{key}.ipynb",
}


def create(key: str, title: str, root: Path = paths.ROOT) -> list[Path]:
    """Write the files of a paper, and enter it in `dynlib.papers.METHODS` and in the table of contents.

    `root` is a clone. Returns what was written or changed. Raises InputError for a key that is no short lower-case name
    or is taken, for a title with quotes or line breaks, and where a file is there already; then nothing is written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{1,20}", key):
        raise InputError(f"key is {key!r:.60}; allowed: 2 to 21 lower-case letters and digits, a letter first")
    if key in METHODS or keyword.iskeyword(key) or [*(root / "notebooks").glob(f"*_{key}.ipynb")]:
        raise InputError(f"key is {key!r}, a chapter or a word of Python; allowed: another than {', '.join(METHODS)}")
    if not re.fullmatch(r'[^"\\]{1,80}', title) or not title.isprintable():
        raise InputError(f"title is {title!r:.60}; allowed: 1 to 80 letters, without quotes")
    taken = [int(path.name[:2]) for path in (root / "notebooks").glob("[0-9][0-9]*.ipynb")]
    place = {"key": key, "number": max(taken, default=0) + 1}
    targets = {name: root / target.format(**place) for name, target in FILES.items()}
    if there := [path for path in targets.values() if path.exists()]:
        raise InputError(f"{there[0].relative_to(root)} is there already; nothing was written")
    for name, target in targets.items():
        text = (root / "template" / name).read_text(encoding="utf-8")
        paths.write_atomically(target, re.sub(r"\bKEY\b", key, text).replace("TITLE", title))
    papers, contents = root / "dynlib" / "papers" / "__init__.py", root / "book" / "_toc.yml"
    _insert(papers, "}\n", f'    "{key}": "{title}",\n')
    _insert(contents, "  - file: references\n", f"  - file: notebooks/{targets['chapter.ipynb'].stem}\n")
    return [*targets.values(), papers, contents]


def _insert(path: Path, before: str, line: str) -> None:
    """A line in front of the first of those that are `before`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines.insert(lines.index(before), line)
    paths.write_atomically(path, "".join(lines))
