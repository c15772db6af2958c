"""dynlib: five ways to spend less computation per image, as transformations of an ordinary PyTorch CNN.

The engine, the papers on it, and the book on these. A file imports only from floors below its own
(tests/test_floors.py parses the imports):

    engine  errors                       what a caller can get wrong
            paths  settings  catalogue   where things are; values as people type them; the data sets by name
            engines                      what runs an ONNX graph; needs no torch
            ops  deployed                tools that two papers share; a deployed network, without torch
            decisions  runtime           what is decided between its parts; read from a folder
            networks                     graphs that are saved whole; weights that know their settings
            cost  data/  quantise        MACs; data sets; graphs in int8
            tracing                      how a model becomes a graph, and what is refused on the way
            roles                        what each node of a graph does to channels
            graphs  export               networks as graphs; modules as ONNX graphs
            backbones/  variants         networks; the forms in which people run one
            checkpoints                  unfinished training
            train  latency               the training loop; the timing protocol
            tasks                        classification, segmentation, detection: networks and scores
    papers  papers/<key>/                one method a package: Config, convert, cost, deploy; none imports another
    book    book/                        recipes, records, runs, pages, the command line; see its own map

Nothing is re-exported here: `from dynlib.papers import octconv` is the one way to name a thing.
"""

__version__ = "0.1.0"
