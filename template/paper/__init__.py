"""TITLE: Authors, "Title of the paper", venue and year (arXiv number).

The idea in two sentences.

    paper   here
    ...     ...

Departures from the paper, each with its reason:

- None yet.
"""

from dynlib.papers.KEY.convert import Config, convert, cost, deploy
