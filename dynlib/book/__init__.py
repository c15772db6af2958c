"""What makes the book, and no part of the methods: recipes, records, runs, chapters and the command line.

    records                          measured facts, one file each
    recipes  zoo/                    what decides a training besides the method; the authors' own networks
    runs  searches  paperscale       one training, one search, cost and speed without training: a record each
    search_trials                    what a candidate of a search is worth
    demos/                           what pages show of a method
    campaign  jobs                   whatever the studies still lack, and where work runs: on cores or on a cluster
    report/                          records to a frame, to a verdict, to a table or a figure
    explore  site                    charts with sliders; what pages need to work from a folder
    chapters  pages  pdf             executing notebooks, building the pages whole, printing them
    api                              the page of the library's names
    newchapter                       the files of a new paper, from template/
    cli  cli_*                       python -m dynlib

Nothing below imports it. Importing it costs nothing: no torch, no pandas.
"""
