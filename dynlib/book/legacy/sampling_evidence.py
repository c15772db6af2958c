"""What the chapter compares on real data: which runs there are, and how each is made; `sampling_answer` reads them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynlib.book.records import Record
from dynlib.papers.sampling import Config
from dynlib.tasks import TASKS

GAMMA = 1.0  # of the profile, and of every run that does not name another
GAMMAS = (0.3, GAMMA, 3.0, 10.0)
SIGMA = 1.0  # likewise; the released start, 3, hardly moves in a few hundred steps
# What a task changes in the recipe of the profile, which is that of segmentation.
RECIPES = {
    "segmentation": {},
    "detection": {
        "dataset": "bccd",
        "size_px": 128,
        "batch_size": 4,
        "epochs": 8,
        "lr": 0.005,  # at 0.02 the loss of the dense detector is soon no number
        "warmup_epochs": 1.0,
    },
    "classification": {
        "dataset": "imagenette224",
        "train_images": 2000,
        "size_px": 64,
        "batch_size": 25,
    },
}
DATA = {"segmentation": "CamVid", "detection": "BCCD", "classification": "Imagenette"}
DENSE = "dense"
FAMILIES = ("stochastic", "deterministic", "uniform")  # in the paper's order
# By name, the fields of the method that differ from the profile's.
RUNS: dict[str, dict] = {DENSE: {"density": 1.0}}
RUNS |= {f"uniform, density {d}": {"sampling": "uniform", "density": d} for d in (0.25, 0.5)}
RUNS |= {f"deterministic, gamma {g}": {"sampling": "deterministic", "gamma": g} for g in GAMMAS}
RUNS |= {f"stochastic, gamma {g}": {"gamma": g} for g in GAMMAS}
RUNS |= {kind: {"interpolation": kind} for kind in ("convolution", "average", "zeros", "reuse")}
RUNS |= {
    "rbf, sigma 3": {"sigma": 3.0},
    "no grid": {"grid": None},
    "one mask": {"masks": 1},
    "three masks": {"masks": 3},
}
for share in (0.25, 0.5):
    RUNS |= {f"pruned {share}": {"pruned": share, "density": 1.0}, f"sampled, pruned {share}": {"pruned": share}}
MAIN = f"stochastic, gamma {GAMMA}"  # the default of everything: RBF, two masks, grid
ASKED = {  # the runs of each task that the chapter asks for
    "segmentation": tuple(name for name in RUNS if not name.endswith(f"gamma {GAMMAS[-1]}")),
    # Of uniform sampling a quarter: what a detector can take, see baselines.shrink_stem. It learns at a tenth of
    # the rate, so that it takes a higher price to leave as many positions out.
    "detection": (
        DENSE,
        "uniform, density 0.25",
        *(f"{kind}, gamma {g}" for kind in ("deterministic", "stochastic") for g in GAMMAS[1:]),
    ),
    "classification": (DENSE, "uniform, density 0.5", MAIN, "zeros"),
}


class Exhibit(NamedTuple):
    """A table of the paper from our records."""

    task: str
    title: str
    rows: dict[str, str]  # its words for a row, and the name of our run
    said: str  # of the paper's numbers, which could not be obtained


EXHIBITS = (
    Exhibit(
        "segmentation",
        "Figure 4 as a table, CamVid",
        {name: name for name in ASKED["segmentation"] if name == DENSE or name.partition(",")[0] in FAMILIES},
        "a clear gain over deterministic and a very clear one over uniform sampling at every cost",
    ),
    Exhibit(
        "detection",
        "Figure 4 as a table, BCCD",
        {name: name for name in ASKED["detection"]},
        "the same; the released models stand above",
    ),
    Exhibit(
        "segmentation",
        "Table 1: the interpolation, CamVid",
        {"RBF from sigma 1, ours": MAIN, "RBF from sigma 3, released": "rbf, sigma 3"}
        | {"plain convolution": "convolution", "average pooling": "average"},
        "at comparable accuracy the RBF needs less computation than the other two",
    ),
    Exhibit(
        "segmentation",
        "Table 2: no interpolation, CamVid",
        {"interpolation, default": MAIN, "fill zeros": "zeros", "reuse features": "reuse"},
        "both replacements are clearly worse",
    ),
    Exhibit(
        "segmentation",
        "Table 3: the grid prior, CamVid",
        {"with, default": MAIN, "without": "no grid"},
        "accuracy changes little, training becomes more stable",
    ),
    Exhibit(
        "segmentation",
        "Figure 3: the integrations, CamVid",
        {"one mask": "one mask", "two masks (b), default": MAIN, "three masks": "three masks"},
        "one mask saves most and is least accurate; (b) is best",
    ),
    Exhibit(
        "classification",
        "Table 4: classification, Imagenette",
        {"dense": DENSE, "uniform": "uniform, density 0.5", "sampled": MAIN, "without interpolation": "zeros"},
        "no significant advantage on classification, and removing the interpolation changes little",
    ),
    Exhibit(
        "segmentation",
        "Table 6: pruning, and sampling on top, CamVid",
        {"dense": DENSE, "sampled": MAIN}
        | {f"{share:.0%} pruned": f"pruned {share}" for share in (0.25, 0.5)}
        | {f"{share:.0%} pruned, sampled": f"sampled, pruned {share}" for share in (0.25, 0.5)},
        "with sampling it is better than pruning alone at every ratio tried",
    ),
)


def configs(task: str) -> dict[str, Config]:
    """The settings of every run that a task is asked for, by name."""
    return {name: Config(**{"gamma": GAMMA, "sigma": SIGMA} | RUNS[name]) for name in ASKED[task]}


TRAIN = "python -m dynlib train sampling --profile public --data-root DIR"


def command(task: str, run: str, seed: int = 0) -> str:
    """What makes a record."""
    given = RECIPES[task] | RUNS[run]
    values = (f" -p {name}={'null' if value is None else value}" for name, value in given.items())
    precision = "" if task == "detection" else " --precision bf16-mixed"  # as our records; a detector takes float32
    return f"{TRAIN}{precision}{''.join(values)} --seed {seed}"


METRICS = {task: TASKS[task].metric for task in RECIPES}
Found = Mapping[str, Sequence[Record]]  # records of a task by the name of the run, one a seed


def missing(found: Mapping[str, Found]) -> str:
    """The commands that make what the tables of all tasks lack, as a list of code; nothing where nothing is."""
    lines = [command(task, name) for task, of in found.items() for name, runs in of.items() if not runs]
    short = [f"train{line.removeprefix(TRAIN)}" for line in lines]
    told = [
        "Without a record so far; each line makes one, any with `--seed 1` a second seed:",
        "",
        "```bash",
        f'train() {{ {TRAIN} "$@"; }}',
        *short,
        "```",
    ]
    return "\n".join(told) if lines else ""


def notes(found: Found, exhibit: Exhibit) -> list[str]:
    """What the paper says of a table, and where the commands of runs without a record stand."""
    lacking = any(not found[name] for name in exhibit.rows.values())
    told = ["n = 0: no record yet; its command stands below the last of these tables."] * lacking
    return [f"Claimed: no numbers could be obtained; in words: {exhibit.said}.", *told]
