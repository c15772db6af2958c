"""Records of networks with stages, made up: the parts that are read."""

from types import SimpleNamespace


def outcome(held_out_top1, held_out_macs, top1, macs):
    """What one choice of thresholds promised and did; the promised cost stands for the thresholds."""
    values = {"held_out_top1": held_out_top1, "held_out_macs": held_out_macs, "top1": top1, "macs": macs}
    return values | {"thresholds": [held_out_macs / 100]}


def run(seed, top1, macs, *, outcomes=(), exits=1):
    """A record whose exits cost `macs` and as much again each."""
    whole = {
        "exit_top1": [top1] * exits,
        "exit_share": [1 / exits] * exits,
        "leaver_top1": [top1, *[None] * (exits - 1)],
    }
    costs = {"macs": 100, "expected_macs": macs, "exit_macs": [macs * (k + 1) for k in range(exits)]}
    rules = {rule: list(outcomes) for rule in ("quota", "front", "budget")}
    return SimpleNamespace(seed=seed, metrics={"top1": top1, "rules": rules} | whole | costs)


def thinned(seed, top1, macs):
    """A record of a network with one exit."""
    made = run(seed, top1, macs)
    made.metrics["macs"] = macs
    return made


CHEAP, MIDDLE, DEAR = outcome(0.5, 20, 0.52, 21), outcome(0.6, 40, 0.58, 41), outcome(0.7, 80, 0.71, 79)
STAGED = [run(seed, 0.7, 60, outcomes=(CHEAP, MIDDLE, DEAR), exits=3) for seed in (0, 1)]
