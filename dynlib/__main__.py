"""`python -m dynlib`: the command line."""

import sys

from dynlib.book.cli import main

sys.exit(main())
