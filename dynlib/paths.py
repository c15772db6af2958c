"""Where things are, and how files are written: the only module that knows the folder tree."""

import os
import tempfile
from pathlib import Path

from dynlib.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"  # <profile>/<chapter>.yml
BOOK = ROOT / "book"
EXECUTED = BOOK / "notebooks"  # written by papermill, git-ignored
HTML = ROOT / "_build" / "html"  # the pages, git-ignored
CLAIMS = ROOT / "data" / "claims"  # published numbers, one CSV a paper
CONTENDERS = ROOT / "data" / "surveys" / "contenders.csv"  # what the comparison puts side by side
STUDIES = ROOT / "data" / "studies"  # which runs stand behind a chapter, one file a paper
RESULTS = ROOT / "data" / "results"  # measured numbers, <key>/*.json
SURVEYS = ROOT / "data" / "surveys"  # what converts: one CSV a paper, kept equal to the library by a test
WEIGHTS = ROOT / "data" / "weights"  # of networks small enough to keep: <key>/*.safetensors
RAW = ROOT / "data" / "raw"  # data sets, git-ignored: the default data root
RUNS = ROOT / "data" / "runs"  # checkpoints of unfinished training, git-ignored


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` under a temporary name beside `path`, then rename: a reader sees the old file or the new one.

    Raises InputError where the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give a folder that can be written") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def check_writable(path: Path) -> None:
    """Find out now, not after hours of work, whether `path` can be written; nothing is left behind.

    Raises InputError where it cannot.
    """
    try:
        path.exists()  # a name that is too long is refused here
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give a folder that can be written") from error
