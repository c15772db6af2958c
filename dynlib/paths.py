"""Where things are: the only module that knows the folder tree."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"  # <profile>/<chapter>.yml
BOOK = ROOT / "book"
EXECUTED = BOOK / "notebooks"  # written by papermill, git-ignored
CLAIMS = ROOT / "data" / "claims"  # published numbers, one CSV a paper
STUDIES = ROOT / "data" / "studies"  # which runs stand behind a chapter, one file a paper
RESULTS = ROOT / "data" / "results"  # measured numbers, <key>/*.json
SURVEYS = ROOT / "data" / "surveys"  # what converts: one CSV a paper, kept equal to the library by a test
WEIGHTS = ROOT / "data" / "weights"  # of networks small enough to keep: <key>/*.safetensors
RAW = ROOT / "data" / "raw"  # data sets, git-ignored: the default data root
RUNS = ROOT / "data" / "runs"  # checkpoints of unfinished training, git-ignored
