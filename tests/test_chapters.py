"""Chapters: parameters checked before a kernel starts, results written whole or not at all, whatever ends the run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dynlib.book import chapters
from dynlib.book.cli import main
from dynlib.errors import InputError
from dynlib.paths import ROOT

PARAMETERS = """\
alpha = 0.5  # share of low-frequency channels
width: int | None = None  # channels of the first stage
test_sizes_px = [
    32,
    64,
]  # sides, px
arch: str = "resnet50"
profile = "smoke"
seed = 0
data_root: str | None = None
"""


def failure(book, capsys, *arguments) -> str:
    """The line of a command that must fail with 2, print nothing else and leave nothing behind."""
    before = book.files()
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert book.files() == before
    return err


@pytest.fixture
def no_kernel(monkeypatch):
    """Starting one is a mistake in these tests."""
    monkeypatch.setattr(chapters, "execute", lambda *a, **k: pytest.fail("a kernel was started"))


def test_parameters_are_read_with_default_type_and_comment(book):
    book.chapter("02_octconv", parameters=PARAMETERS)
    found = chapters.parameters("02_octconv")
    assert list(found) == ["alpha", "width", "test_sizes_px", "arch", "profile", "seed", "data_root"]
    assert found["alpha"] == chapters.Parameter("alpha", 0.5, float, "share of low-frequency channels")
    assert found["width"] == chapters.Parameter("width", None, int | None, "channels of the first stage")
    assert found["test_sizes_px"] == chapters.Parameter("test_sizes_px", [32, 64], list, "sides, px")
    assert found["arch"].kind is str and found["arch"].help == ""


def test_what_is_given_goes_before_the_profile_and_the_profile_before_the_defaults(book, tmp_path):
    book.chapter("02_octconv", parameters=PARAMETERS)
    book.profile("public", "02_octconv", "alpha: 0.25\nwidth: 8\n")
    assert chapters.profiles("02_octconv") == ["smoke", "public"]
    assert chapters.settle("02_octconv", "smoke", {}) == {}
    values = chapters.settle("02_octconv", "public", {"alpha": 1}, tmp_path)
    assert values == {"alpha": 1.0, "width": 8, "profile": "public", "data_root": str(tmp_path)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "alhpa=0.25"], "parameter of 02_octconv 'alhpa' is unknown; allowed: alpha, "),
        (["-p", "alpha=much"], "alpha is 'much'; allowed: float"),
        (["-p", "test_sizes_px=32"], "test_sizes_px is 32; allowed: list"),
        (["-p", "seed=1.5"], "seed is 1.5; allowed: int"),
        (["-p", "width=wide"], "width is 'wide'; allowed: int | None"),
        (["-p", "alpha=1.5"], "alpha is 1.5; it is a finite number from 0 to 1"),
        (["-p", "alpha"], "parameter 'alpha': write name=value"),
        (["-p", "profile=paper"], "parameter 'profile' has an option of its own: --profile"),
        (["--profile", "paper"], "profile of 02_octconv 'paper' is unknown; allowed: smoke, public"),
        (["--profile", "public"], "parameter of 02_octconv 'epoch' is unknown"),
        (["--data-root", "nowhere"], "no folder nowhere: --data-root is one that holds NAME/train.npz"),
    ],
)
def test_a_wrong_parameter_stops_before_a_kernel_starts(book, capsys, no_kernel, arguments, words):
    book.chapter("02_octconv", parameters=PARAMETERS)
    book.profile("public", "02_octconv", "epoch: 3\n")
    assert words in failure(book, capsys, "run", "02_octconv", *arguments)


def test_an_unknown_chapter_is_answered_with_the_closest_first(book, capsys):
    book.chapter("01_wae")
    book.chapter("02_octconv")
    assert "chapter 'octconv' is unknown; allowed: 02_octconv, 01_wae" in failure(book, capsys, "run", "octconv")


@pytest.mark.parametrize("target", ["file/02_x.ipynb", "book.html", "notebooks/copy.ipynb"])
def test_a_target_that_cannot_be_written_stops_before_a_kernel_starts(book, capsys, monkeypatch, target):
    book.chapter("02_x")
    (book.root / "file").write_text("in the way")
    monkeypatch.setitem(sys.modules, "papermill", None)  # importing it would fail
    assert f"cannot write {book.root / target}: " in failure(
        book, capsys, "run", "02_x", "--out", str(book.root / target)
    )


def test_a_chapter_runs_in_this_interpreter_from_the_root_with_its_parameters(book, capfd):
    cell = "import os, sys, dynlib; print(alpha, sys.executable, os.getcwd(), dynlib.__file__, sep='|')"
    book.chapter("02_x", cell)
    book.executed.mkdir()
    (book.executed / "02_x.failed.ipynb").write_text("of an earlier run")
    assert main(["run", "02_x", "-p", "alpha=1"]) == 0
    out, err = capfd.readouterr()
    assert out == f"{book.executed / '02_x.ipynb'}\n" and err == ""
    assert book.files() == ["executed/02_x.ipynb"]
    notebook = json.loads((book.executed / "02_x.ipynb").read_text())
    assert "papermill" not in notebook["metadata"]
    printed = "".join(notebook["cells"][-1]["outputs"][0]["text"]).strip()
    assert printed == f"1.0|{sys.executable}|{ROOT}|{ROOT / 'dynlib' / '__init__.py'}"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("\n1 / 0", "cell [2] (1 / 0) failed: ZeroDivisionError: division by zero"),
        ("import os; os._exit(1)", "cell [2] (import os; os._exit(1)) failed: the kernel died"),
    ],
)
def test_a_failed_cell_is_named_and_the_notebook_kept_beside_the_old_target(book, capfd, cell, reason):
    book.chapter("02_x", cell, "print('never')")
    book.executed.mkdir()
    target, failed = book.executed / "02_x.ipynb", book.executed / "02_x.failed.ipynb"
    target.write_text("old")
    assert main(["run", "02_x"]) == 1
    out, err = capfd.readouterr()
    line = err.splitlines()[-1]
    assert out == "" and line.startswith(f"error: 02_x: {reason}") and line.endswith(f"what ran is in {failed}")
    assert err.count("\n") == 1
    assert target.read_text() == "old" and len(json.loads(failed.read_text())["cells"]) >= 4
    assert len(book.files()) == 2


def test_wrong_input_found_by_a_cell_is_wrong_input_of_the_command(book, capfd):
    book.chapter("02_x", "from dynlib.errors import InputError", "raise InputError('size is 225; allowed: 224')")
    assert failure(book, capfd, "run", "02_x") == "error: size is 225; allowed: 224\n"


@pytest.fixture
def started(book):
    """A chapter under way in a process of its own, its kernel's process id, and the old result it would replace."""
    note = book.root / "kernel"
    book.chapter(
        "02_x",
        f"import os, pathlib, time\nnew = pathlib.Path('{note}.new')\nnew.write_text(str(os.getpid()))",
        f"new.rename({str(note)!r})\ntime.sleep(60)",
    )
    book.executed.mkdir()
    (book.executed / "02_x.ipynb").write_text("old")
    program = (
        "import signal, sys, pathlib; from dynlib import paths; from dynlib.book.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs ignore it
        f"paths.NOTEBOOKS, paths.EXECUTED = map(pathlib.Path, {[str(book.notebooks), str(book.executed)]}); "
        "sys.exit(main(['run', '02_x']))"
    )
    scratch = book.root / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(note.exists)
    yield process, int(note.read_text())
    process.kill()


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pid) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_ctrl_c_ends_with_130_one_line_no_kernel_and_no_file(book, started):
    process, kernel = started
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "" and err.startswith("stopped") and err.count("\n") == 1
    wait_until(lambda: gone(kernel))
    assert book.files() == ["executed/02_x.ipynb", "kernel"]
    assert (book.executed / "02_x.ipynb").read_text() == "old"


def test_a_kill_leaves_the_old_result_whole_and_alone(book, started):
    process, kernel = started
    process.kill()
    process.wait()
    wait_until(lambda: gone(kernel))
    assert [name for name in book.files() if name.startswith("executed")] == ["executed/02_x.ipynb"]
    assert (book.executed / "02_x.ipynb").read_text() == "old"


def test_a_paper_may_have_a_second_chapter_and_is_trained_by_the_profile_of_its_first(book):
    book.chapter("02_octconv", parameters=PARAMETERS)
    book.chapter("02b_octconv_families", parameters=PARAMETERS)
    assert chapters.of_method("octconv") == "02_octconv"
    with pytest.raises(InputError, match="alpha is 7"):
        chapters.settle("02b_octconv_families", "smoke", {"alpha": 7})
    with pytest.raises(InputError, match=r"'wae' is unknown; allowed: octconv$"):
        chapters.of_method("wae")


def test_a_chapter_without_a_method_is_checked_by_its_own_parameters_alone(book):
    book.chapter("06_comparison")
    assert chapters.settle("06_comparison", "smoke", {"alpha": 7}) == {"alpha": 7.0}
    with pytest.raises(InputError, match="method with a chapter 'octconv' is unknown; allowed: comparison"):
        chapters.of_method("octconv")
