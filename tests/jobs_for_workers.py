"""What tests give to other processes: without torch, so that a worker is there at once."""

import os
import time
from pathlib import Path


def square(x, folder=None, dies_at=None):
    """x * x; where told so, the worker that is first to get this number dies."""
    if x == dies_at:
        try:
            (Path(folder) / "died").touch(exist_ok=False)
        except FileExistsError:
            return x * x
        os._exit(1)
    time.sleep(0.02)
    return x * x
