"""dynlib: five ways to spend less computation per image, as transformations of an ordinary PyTorch CNN.

A file imports only from floors below its own (tests/test_floors.py parses the imports):

    0  errors  paths  catalogue  records   what a caller can get wrong; where things are; what there is; measured facts
    1  ops  cost  latency  data/           tensor functions two papers share; MACs; the timing protocol; data sets
    2  backbones/  graphs  fusion  kernels  train   networks; torch.fx helpers; folding and freezing; CPU kernels; fit()
    3  papers/<key>                         one method a module: Config, convert, cost, deploy
    wing (on 0 only, no torch)  tables  plots
    4  settings  runs  chapters  cli  __main__   values as typed; one run, one record; notebooks; `python -m dynlib`

Inside floors 0, 2 and 4 a file may import from those that stand before it in this list.

Nothing is re-exported here: `from dynlib.papers import octconv` is the one way to name a thing.
"""

__version__ = "0.1.0"
