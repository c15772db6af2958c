"""Records to tables and figures: the only way from a measurement to a page.

    claims    published numbers, and the orders that a paper claims
    frame     all records of a paper in one table, each named by its study and row
    compare   one rule for "A above B": paired by seed, at equal cost, 95 % interval, four verdicts
    contenders   what one could run instead, on common ground
    judged    the orders of a paper with their verdicts and records
    kept      accuracy kept over cost: ours on common ground, theirs as published
    readme    the tables of README.md
    status    what has become of every table and figure of the papers
    table     a frame as a page shows it; the paper's numbers beside ours
    figure    pictures of frames
    breakdown where the time goes, as a picture

Sentences are written on the pages, by people; `expect` stops a page whose words no longer hold.
"""

from dynlib.book.report.claims import claims, orders
from dynlib.book.report.compare import Comparison, compare, expect, paired, verdicts
from dynlib.book.report.contenders import contenders
from dynlib.book.report.frame import latencies, rows, summary, trainings
from dynlib.book.report.judged import judged, proofs, proofs_at
from dynlib.book.report.kept import kept, plain_ms, published
from dynlib.book.report.readme import renewed
from dynlib.book.report.status import VERDICTS, status, summarised
from dynlib.book.report.table import Linked, badge, beside, interval, show
