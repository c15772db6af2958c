"""Where things are, and how files are written: the only module that knows the folder tree."""

import fcntl
import glob
import os
import tempfile
import time
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
COMMON = ROOT / "data" / "surveys" / "common.csv"  # the rows that stand on common ground
PUBLISHED = ROOT / "data" / "surveys" / "published.csv"  # what papers print of accuracy and cost together
STUDIES = ROOT / "data" / "studies"  # which runs stand behind a chapter, one file a paper
RESULTS = ROOT / "data" / "results"  # measured numbers, <key>/*.json
SURVEYS = ROOT / "data" / "surveys"  # what converts and why not the rest
WEIGHTS = ROOT / "data" / "weights"  # of networks small enough to keep: <key>/*.safetensors
RAW = ROOT / "data" / "raw"  # data sets, git-ignored: the default data root
RUNS = ROOT / "data" / "runs"  # checkpoints of unfinished training, git-ignored

LEFT_S = 60  # for how long nobody has written to a file that was left; a lock is taken sooner than that


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` under a temporary name beside `path`, then rename: a reader sees the old file or the new one.

    What killed runs left of writing the same file is removed. Raises InputError where the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give a folder that can be written") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # ends with this process, whatever ends it
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


def claimed(path: Path) -> int | None:
    """A file or folder opened and locked, or None where a process holds it: a lock ends with its process."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # removed in the meantime
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove_left(path: Path) -> None:
    """Remove temporary files beside `path` that no process writes any more."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if (handle := claimed(left)) is not None:
            if time.time() - os.fstat(handle).st_mtime > LEFT_S:
                left.unlink(missing_ok=True)
            os.close(handle)


def check_writable(path: Path) -> None:
    """Find out now, not after hours of work, whether `path` can be written; nothing is left behind.

    Raises InputError where it cannot, or is a folder.
    """
    try:
        if path.is_dir():  # a name that is too long is refused here
            raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; give a folder that can be written") from error
