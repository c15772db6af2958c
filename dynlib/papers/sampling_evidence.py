"""What the chapter compares on real data: which runs there are, how each is made, and what their records say."""

GAMMA = 0.3  # of the profile, and of every run that does not name another
GAMMAS = (0.1, GAMMA, 1.0)
# What a task changes in the recipe of the profile, which is that of segmentation.
RECIPES = {
    "segmentation": {},
    "detection": {"dataset": "bccd", "size_px": 128, "batch_size": 4, "epochs": 8, "lr": 0.02},
    "classification": {
        "dataset": "imagenette224",
        "train_images": 2000,
        "size_px": 96,
        "batch_size": 50,
        "epochs": 5,
        "lr": 0.1,
    },
}
DENSE = "dense"
# By name, the fields of the method that differ from the profile's.
RUNS: dict[str, dict] = {DENSE: {"density": 1.0}}
RUNS |= {f"uniform, density {d}": {"sampling": "uniform", "density": d} for d in (0.25, 0.5)}
RUNS |= {f"deterministic, gamma {g}": {"sampling": "deterministic", "gamma": g} for g in GAMMAS}
RUNS |= {f"stochastic, gamma {g}": {"gamma": g} for g in GAMMAS}
RUNS |= {kind: {"interpolation": kind} for kind in ("convolution", "average", "zeros", "reuse")}
RUNS |= {
    "rbf, sigma 1": {"sigma": 1.0},
    "no grid": {"grid": None},
    "one mask": {"masks": 1},
    "three masks": {"masks": 3},
}
MAIN = f"stochastic, gamma {GAMMA}"  # the default of everything: RBF, two masks, grid


def command(task: str, run: str, seed: int = 0) -> str:
    """What makes a record."""
    given = RECIPES[task] | RUNS[run]
    values = (f" -p {name}={'null' if value is None else value}" for name, value in given.items())
    return f"python -m dynlib train sampling --profile public --data-root DIR{''.join(values)} --seed {seed}"
