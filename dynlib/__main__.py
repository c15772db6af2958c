"""`python -m dynlib`: the command line."""

import sys

from dynlib.cli import main

sys.exit(main())
