"""The build of the real pages is stopped at many moments and run once more: it must equal one that nobody disturbed.

Takes a minute for three moments and needs the executed chapters, so it runs only where KILLS says at how many:

    KILLS=20 .venv/bin/python -m pytest tests/test_kills.py
"""

import os
import shutil
import signal
import subprocess
import time

import pytest

from dynlib.paths import EXECUTED, HTML, ROOT

KILLS = int(os.environ.get("KILLS", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
KEPT = [option for path in sorted(EXECUTED.glob("*.ipynb")) for option in ("-o", str(path.relative_to(ROOT)))]
MAKE = ["make", "-o", ".venv/ready", *KEPT, "book"]  # the chapters stay as they are: the pages alone are built

pytestmark = pytest.mark.skipif(not KILLS, reason="KILLS is not set")


def start():
    (ROOT / "_config.yml").touch()
    return subprocess.Popen(MAKE, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)


def content():
    return {path.relative_to(HTML).as_posix(): path.read_bytes() for path in HTML.rglob("*") if path.is_file()}


def pages():
    return list(HTML.parent.glob("part-*/_build/html/**/*.html"))


def writing() -> tuple[float, float]:
    """Seconds after which an undisturbed build writes its first page, and ends."""
    began, first, build = time.monotonic(), None, start()
    while build.poll() is None:
        if first is None and pages():
            first = time.monotonic() - began
        time.sleep(0.02)
    assert build.returncode == 0 and first is not None
    return first, time.monotonic() - began


@pytest.fixture(scope="module")
def undisturbed():
    shutil.rmtree(HTML, ignore_errors=True)
    first, end = writing()
    return content(), first, end


@pytest.mark.parametrize("number", range(KILLS))
def test_a_build_that_was_stopped_and_run_again_equals_an_undisturbed_one(number, undisturbed):
    expected, first, end = undisturbed
    if number % 2:
        shutil.rmtree(HTML, ignore_errors=True)  # every other time there are no old pages to fall back on
    build, how = start(), SIGNALS[number % len(SIGNALS)]
    began = time.monotonic()
    while not pages() and build.poll() is None:
        time.sleep(0.02)
    late = time.monotonic() - began - first  # of this build's first page
    moment = first + late + (end - first) * number / KILLS
    time.sleep(max(0.0, moment - (time.monotonic() - began)))
    if how == signal.SIGTERM:
        build.send_signal(how)  # as a supervisor stops make alone; a key or -9 meets all of its processes
    else:
        os.killpg(build.pid, how)
    build.wait(120)
    assert subprocess.run(MAKE, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert content() == expected
    assert list(HTML.parent.glob("part-*")) == []
