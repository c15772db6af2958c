"""Moved to `dynlib.book.report.figure`; pages that still ask here have not been rewritten yet."""

from dynlib.book.report.figure import *  # noqa: F403
from dynlib.book.report.figure import _axis, _colours, _label, _write  # noqa: F401
