"""dynlib: five ways to spend less computation per image, as transformations of an ordinary PyTorch CNN.

A file imports only from floors below its own (tests/test_floors.py parses the imports):

    0  errors  paths  catalogue     what a caller can get wrong; where things are; what there is
    1  records  settings  runtime   measured facts; values as people type them; deployed networks, without torch
       authors_count                what else than products OctConv's authors count
    2  ops  cost  data/  quantise   tensor functions two papers share; MACs; data sets; graphs in int8
       student                      whether a mean over few seeds says anything
    3  graphs  export               networks as graphs; modules as ONNX graphs
    4  backbones/  latency          networks; the timing protocol
    5  train                        the training loop
    6  tasks                        classification, segmentation, detection: networks and scores
    7  papers/<key>                 one method a module: Config, convert, cost, deploy
       recipes                      what decides a training besides the method; its data
    8  runs  searches  paperscale   one training or search, one record; cost and speed without training
    9  chapters                     executing notebooks
   10  cli                          python -m dynlib
    wing (on 0 and 1 only, no torch)  tables  plots  tables_choices  plots_choices

Nothing is re-exported here: `from dynlib.papers import octconv` is the one way to name a thing.
"""

__version__ = "0.1.0"
