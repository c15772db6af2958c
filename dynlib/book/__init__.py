"""What makes the book, and no part of the methods: recipes, records, runs, chapters and the command line.

    records  jobs                    measured facts, one file each; independent jobs on cores or a cluster
    recipes  zoo/                    what decides a training besides the method; the authors' own networks
    runs  searches  paperscale       one training, one search, cost and speed without training: a record each
    search_study  search_trials      a search from end to end, and the candidates that it measures
    demos/  legacy/                  what pages show of a method; records turned into tables and words
    chapters  cli                    executing notebooks; python -m dynlib

Nothing below imports it. Importing it costs nothing: no torch, no pandas.
"""
