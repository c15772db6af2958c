"""The pages are replaced whole or stay as they were, whatever stops a build."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dynlib.book import pages
from dynlib.errors import InputError
from dynlib.paths import ROOT


def book(folder, pages=12):
    """A book of twelve pages, so that a build takes some time to write."""
    source = folder / "book"
    source.mkdir()
    (folder / "_config.yml").write_text("title: T\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n")
    names = [f"p{number}" for number in range(pages)]
    chapters = "".join(f"  - file: {name}\n" for name in names)
    (source / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{chapters}")
    for name in ("intro", *names):
        (source / f"{name}.md").write_text(f"# {name}\n\n" + "Words. " * 200)
    return source


def content(target):
    """Every page; what only speeds up the next build is not of the site."""
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in sorted(target.rglob("*.html"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the pages of the whole book."""
    folder = tmp_path_factory.mktemp("book")
    pages.build(book(folder), folder / "_build" / "html")
    return folder / "_build" / "html"


def test_a_page_that_does_not_build_fails_each_time_and_leaves_the_old_pages(tmp_path, undisturbed):
    source, target = book(tmp_path), tmp_path / "_build" / "html"
    shutil.copytree(undisturbed, target)
    (source / "p3.md").write_text("# p3\n\n[nowhere](missing.md)\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"the pages do not build: .*p3"):
            pages.build(source, target)
    assert content(target) == content(undisturbed)
    assert [path.name for path in target.parent.iterdir() if path.name.startswith("part-")] == []


SCRIPT = "import sys; from pathlib import Path; from dynlib.book import pages; pages.build(*map(Path, sys.argv[1:]))"


def test_a_build_that_was_killed_while_it_wrote_is_made_anew(tmp_path, undisturbed):
    source, target = book(tmp_path), tmp_path / "_build" / "html"
    for count in (1, 12):  # pages that are written when it is killed
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, source, target], cwd=ROOT, start_new_session=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(target.parent.glob("part-*/_build/html/p*.html"))) >= count:
                break
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGKILL)  # not by kill(1): some read -12345 as -1, which is everybody
        assert process.wait() in (0, -signal.SIGKILL)
    pages.build(source, target)
    assert content(target) == content(undisturbed)
    assert list(target.parent.glob("part-*")) == []


def test_without_an_address_of_the_repository_no_button_leads_there(tmp_path):
    source, target = book(tmp_path, 1), tmp_path / "_build" / "html"
    config = tmp_path / "_config.yml"
    buttons = "launch_buttons: {binderhub_url: 'https://mybinder.org'}\nhtml: {use_repository_button: true}\n"
    for address, there in (("''", False), ("https://github.com/a/b", True)):
        config.write_text(f"{config.read_text().partition('repository')[0]}repository: {{url: {address}}}\n{buttons}")
        pages.build(source, target)
        assert ("github.com/a/b" in (target / "p0.html").read_text()) is there


def test_what_stopped_a_build_is_a_line_that_says_so():
    told = {"Sphinx error:\nroot file intro.md not found\n": "root file intro.md not found", "Running:\n": "no reason"}
    assert all(pages._complaint(text).startswith(line) for text, line in told.items())
    assert (
        pages._complaint("one\nx.md:3: \x1b[31mWARNING: undefined label:\x1b[0m") == "x.md:3: WARNING: undefined label:"
    )
