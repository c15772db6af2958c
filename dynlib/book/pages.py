"""The pages: built into a fresh folder and put in their place whole, or not at all."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from dynlib import paths
from dynlib.book import site
from dynlib.errors import InputError


def build(source: Path = paths.BOOK, target: Path = paths.HTML) -> None:
    """Build the book in `source` and let it take the place of `target`; warnings are errors. Records lie beside it.

    A build that fails leaves `target` as it was and its log beside it, `book.log`; so does one that is killed, whose
    folder the next build removes. Two builds at once do not meet: the later one to end is seen. Raises InputError for a
    page that does not build, naming the first complaint.
    """
    place = target.parent
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob("part-*"):
        if (held := paths.claimed(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    log, held = place / "book.log", None
    while held is None:  # another build may have taken the folder for a left one
        begun = Path(tempfile.mkdtemp(prefix="part-", dir=place))
        held = paths.claimed(begun)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as any exception: ends below
    try:
        settings = _settings(source.parent / "_config.yml", begun / "_config.yml")
        command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--path-output", begun]
        done = subprocess.run(
            [*map(str, command), "--config", str(settings), "-W", "-n", "--keep-going", "-q"],
            capture_output=True,
            text=True,
            env=os.environ | {"TERM": "dumb"},
        )
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        made = begun / "_build" / "html"
        if done.returncode or not (made / "index.html").is_file():
            raise InputError(f"the pages do not build: {_complaint(done.stderr)}; {log} has all of it")
        if (made / "_static" / "explore.js").is_file():  # our book, not one that a test made
            site.finish(made)
        shutil.copytree(paths.RESULTS, made / "records")  # so that a verdict can link to what it rests on
        old = begun / "old"
        if target.exists():
            target.rename(old)
        made.rename(target)
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(begun, ignore_errors=True)
        os.close(held)


def _settings(config: Path, own: Path) -> Path:
    """The settings to build with: `config`, or where it names no repository a copy without the buttons to it."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if settings.get("repository", {}).get("url"):
        return config
    settings.pop("launch_buttons", None)
    settings["html"] = {k: v for k, v in settings.get("html", {}).items() if not k.endswith("_button")}
    own.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return own


def _complaint(text: str) -> str:
    """The first line that names a fault, without where on this machine it lies."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    found = [line for line in lines if "WARNING" in line or "ERROR" in line]
    lines = [line for line in lines if not line.endswith(":")]
    return (found or lines or ["no reason was given"])[0].replace(f"{paths.ROOT}{os.sep}", "")
