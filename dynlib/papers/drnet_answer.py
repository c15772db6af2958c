"""What the records of dynamic resolution say: every policy at its cost, and where a gain comes from.

Pure functions of training records, see `drnet_controls.report` for what these hold. All lists have one value a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from dynlib.records import Record
from dynlib.student import beyond_chance

TRAINING, ECONOMY = "training at several sizes", "fewer pixels, blindly"
CHOICE, TOGETHER = "the choice", "together"
DYNAMIC, PERMUTED, NOISY = "dynamic choice", "its choices permuted", "drawn with noise, as in training"
MIXTURE, CASCADE, AT_ONE = "mixture of fixed sizes", "confidence cascade", ", same cost"
Point = tuple[float, float]  # mean MACs or ms an image, top-1


def by_seed(runs: Iterable[Record]) -> dict[int, Record]:
    """Runs of one setting by their seed."""
    return {run.seed: run for run in runs}


def at_cost(points: Iterable[Point], cost: float) -> float | None:
    """Highest top-1 that a random mixture of two of the points reaches at a mean cost of at most `cost`.

    None where every point costs more.
    """
    points = list(points)
    pairs = [(a, b) for a in points for b in points if a[0] < cost < b[0]]
    mixed = [a[1] + (b[1] - a[1]) * (cost - a[0]) / (b[0] - a[0]) for a, b in pairs]
    return max(mixed + [top1 for spent, top1 in points if spent <= cost], default=None)


def outcomes(run: Record, plain: Record | None) -> dict[str, Point]:
    """(MACs, top-1) of every policy for one trained network; `plain` is the network without choices, of the same seed.

    The first three, of the predictor, pay for it; the others do not ask it. The mixture and the cascade are given at
    the cost of the dynamic choice, and left out where they cannot be had for that.
    """
    m = run.metrics
    spent = m["macs_expected"]
    found = {DYNAMIC: (spent, m["top1"]), PERMUTED: (spent, m["permuted_top1"])}
    found[NOISY] = (m["sampled_macs"] + m["macs_predictor"], mean(m["sampled_top1"]))
    fixed = list(zip(m["macs_by_side"], m["fixed_top1"], strict=True))
    for name, points in {MIXTURE: fixed, CASCADE: cascade(run)}.items():
        if (top1 := at_cost(points, spent)) is not None:
            found[f"{name}{AT_ONE}"] = (spent, top1)
    found["uniform random"] = (m["uniform_macs"], mean(m["uniform_top1"]))
    found |= {f"always {side} px": point for side, point in zip(m["sides_px"], fixed, strict=True)}
    found["oracle, smallest sufficient"] = (m["sufficient_macs"], m["sufficient_top1"])
    if plain is not None:
        found["plain network, as many epochs"] = (plain.metrics["macs"], plain.metrics["top1"])
    return found


def cascade(run: Record) -> list[Point]:
    """(MACs, top-1) of the confidence cascade at each threshold."""
    return list(zip(run.metrics["cascade_macs"], run.metrics["cascade_top1"], strict=True))


def policies(runs: Sequence[Record], plain: Mapping[int, Record]) -> dict[str, dict[str, list[float]]]:
    """For every policy `macs`, `top1` and `behind`, the points of top-1 by which the dynamic choice is ahead of it."""
    table: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for name, (macs, top1) in outcomes(run, plain.get(run.seed)).items():
            row = table.setdefault(name, {"macs": [], "top1": [], "behind": []})
            row["macs"].append(macs), row["top1"].append(top1)
            if name != DYNAMIC:
                row["behind"].append(run.metrics["top1"] - top1)
    return table


def parts(runs: Sequence[Record], plain: Mapping[int, Record]) -> dict[str, list[float]]:
    """The gain of dynamic resolution over the plain network, as the sum of three parts; the first for seeds with both.

    Training: the same network with every image at full resolution, over the plain one. Fewer pixels: its choices dealt
    out at random, over full resolution for all. The choice: the same where they belong, over dealt out at random.
    """
    found: dict[str, list[float]] = {TRAINING: [], ECONOMY: [], CHOICE: [], TOGETHER: []}
    for run in runs:
        blind, full = run.metrics["permuted_top1"], run.metrics["fixed_top1"][0]
        found[ECONOMY].append(blind - full)
        found[CHOICE].append(run.metrics["top1"] - blind)
        if run.seed in plain:
            found[TRAINING].append(full - plain[run.seed].metrics["top1"])
            found[TOGETHER].append(run.metrics["top1"] - plain[run.seed].metrics["top1"])
    return found


def answer(name: str, runs: Sequence[Record], plain: Mapping[int, Record]) -> str:
    """One paragraph, in words and points of top-1: how much is the choice, how much multi-resolution training."""
    if not runs:
        return f"**{name}**: no record yet."
    found, m = parts(runs, plain), [run.metrics for run in runs]
    text = f"**{name}** (n = {len(runs)}). {_collapse(m)}"
    text += f"The choice itself: **{in_points(found[CHOICE])}** against the same choices dealt out at random"
    text += "" if _single(m) else f", {_deals(m)}"
    text += f"; {_established(found[CHOICE])}. Fewer pixels, blindly: {in_points(found[ECONOMY])}. "
    if found[TRAINING]:
        text += (
            f"Training at several sizes: **{in_points(found[TRAINING])}** with every image at full size, against the "
        )
        text += f"plain network of as many epochs (n = {len(found[TRAINING])}). "
        text += f"Together, dynamic resolution against the plain network: {in_points(found[TOGETHER])}. "
    else:
        text += "What training at several sizes is worth cannot be told: no plain network of the same seed. "
    table = policies(runs, plain)
    rivals = {name: table[f"{name}{AT_ONE}"]["behind"] for name in (MIXTURE, CASCADE) if f"{name}{AT_ONE}" in table}
    against = [f"a {name}: {in_points(behind)}" for name, behind in rivals.items()]
    return text + (f"At the cost of the dynamic choice, against {', against '.join(against)}." if against else "")


def _collapse(metrics: Sequence[Mapping]) -> str:
    """What must be said first: in how many runs nearly all images are sent to one size, and whether it is the best."""
    single = _single(metrics)
    if not single:
        return ""
    where = " or ".join(f"{side} px" for side in sorted({m["sides_px"][j] for m, j in single}))
    best = sum(m["fixed_top1"][j] == max(m["fixed_top1"]) for m, j in single)
    text = f"In {len(single)} of {len(metrics)} runs more than 99 % of the images are sent to one size, {where}: no "
    text += "choice is made, and always that size would do the same without the predictor's cost. "
    text += f"In {best} of these that is the best single size. With the noise of training other sizes are drawn too "
    return text + f"(mean entropy {mean(m['entropy'] for m, _ in single):.2f} nats). "


def _established(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "one seed tells no spread"
    return f"over seeds that is {'' if beyond_chance(values) else 'not '}beyond chance (Student's t, 95 %)"


def _deals(metrics: Sequence[Mapping]) -> str:
    """How far the choice stands from random deals of itself, in their standard deviations, run by run."""
    far = [(m["top1"] - m["permuted_top1"]) / m["permuted_std"] for m in metrics]
    return f"{', '.join(f'{value:+.1f}' for value in far)} standard deviations of a random deal".replace("-", "−")


def _single(metrics: Sequence[Mapping]) -> list[tuple[Mapping, int]]:
    """The runs that send nearly all images to one size, and which."""
    return [(m, m["shares"].index(max(m["shares"]))) for m in metrics if max(m["shares"]) > 0.99]


def plane(evidence: Mapping[str, Sequence[Record]], plain: Mapping[int, Record]) -> dict[str, list[Point]]:
    """For a figure: every family of policies as its points (mean MACs, mean top-1), each the mean over seeds.

    `evidence` has the runs of several settings; what a network does at fixed sizes, in a cascade, at random or with an
    oracle is that of the first of them, and is empty where that has no run.
    """
    each = [policies(runs, plain) for runs in evidence.values()]
    first, runs = each[0], next(iter(evidence.values()))

    def all_of(tables: Sequence[Mapping], start: str) -> list[Point]:
        found = [row for table in tables for name, row in table.items() if name.startswith(start)]
        return [(mean(row["macs"]), mean(row["top1"])) for row in found]

    alone = tuple(mean(run.metrics[name] for run in plain.values()) for name in ("macs", "top1") if plain)
    steps = zip(*map(cascade, runs), strict=True)  # of all seeds, a threshold at a time
    return {
        DYNAMIC: all_of(each, DYNAMIC),
        PERMUTED: all_of(each, PERMUTED),
        "always one size": all_of([first], "always"),
        CASCADE: [tuple(map(mean, zip(*step, strict=True))) for step in steps],
        "oracle": all_of([first], "oracle"),
        "plain network": [alone] if plain else [],
        "uniform random": all_of([first], "uniform"),
    }


def choosing_ms(mixture: Record, alone: Sequence[Record]) -> float:
    """What the mixture took beyond its single sizes, ms an image: predictor, resizing, choosing, and noise.

    `alone` are the networks of one size, timed without predictor, from the largest; all at batch 1.
    """
    return mixture.metrics["method_ms"] - _mixed(mixture.config["shares"], alone)


def time_plane(
    evidence: Mapping[str, Sequence[Record]], mixture: Record | None, alone: Sequence[Record | None]
) -> dict[str, list[Point]]:
    """As `plane`, over the time that the timed network would take at the shares of each setting's runs.

    The sum of single sizes and `choosing_ms`; sizes alone ask no predictor. Empty where records are missing.
    """
    if mixture is None or not all(alone) or not evidence:
        return {}
    choosing, found = choosing_ms(mixture, alone), {DYNAMIC: [], PERMUTED: []}
    for runs in filter(None, evidence.values()):
        spent = mean(choosing + _mixed(run.metrics["shares"], alone) for run in runs)
        found[DYNAMIC].append((spent, mean(run.metrics["top1"] for run in runs)))
        found[PERMUTED].append((spent, mean(run.metrics["permuted_top1"] for run in runs)))
    first = next(iter(evidence.values()))
    fixed = map(mean, zip(*(run.metrics["fixed_top1"] for run in first), strict=True))
    return found | {
        "always one size": [(run.metrics["method_ms"], top1) for run, top1 in zip(alone, fixed, strict=False)]
    }


def _mixed(shares: Sequence[float], alone: Sequence[Record]) -> float:
    return sum(share * run.metrics["method_ms"] for share, run in zip(shares, alone, strict=True))


def timing_words(mixture: Record | None, alone: Sequence[Record | None]) -> str:
    """One paragraph on where the time goes, or on what has to be measured first."""
    if mixture is None or not all(alone):
        return "What choosing takes is told here once all times are recorded: `make latency`."
    choosing, static = choosing_ms(mixture, alone), mixture.metrics["static_ms"]
    took, slowest = mixture.metrics["method_ms"], choosing + alone[0].metrics["method_ms"]
    return (
        f"Mixed in these shares, the single sizes take {took - choosing:.1f} ms; the mixture took {took:.1f} ms. The "
        f"difference, {choosing:.1f} ms, is predictor, resizing and choosing, and noise. An image that is sent to full "
        f"resolution needs about {slowest:.1f} ms, against {static:.1f} ms of the fastest static network"
        f"{': for these images, choosing costs time' * (slowest > static)}."
    )


def at_fixed_sizes(networks: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, list[float]]]:
    """Top-1 with every image at one size, by network and size; a network without choices was tested at its own."""
    found = {}
    for name, runs in networks.items():
        found[name] = sizes = {}
        for m in (run.metrics for run in runs):
            sides = m.get("sides_px") or [m["size_px"]]
            for side, top1 in zip(sides, m.get("fixed_top1", [m["top1"]]), strict=True):
                sizes.setdefault(f"{side} px", []).append(top1)
    return found


def groups(run: Record, count: int) -> dict[str, list[int]]:
    """Test images by the smallest size that is enough, and by the one they are sent to: indices in stored order.

    At most `count` of each group, spread over all of it.
    """
    m = run.metrics
    sides, found = [f"{side} px" for side in reversed(m["sides_px"])], {}
    for start, digits in (("enough:", m["sufficient"]), ("sent to", m["choices"])):
        for j, side in enumerate(sides):
            digit = str(len(sides) - 1 - j)
            found[f"{start} {side}"] = [n for n, other in enumerate(digits) if other == digit]
    spread = {name: [of[i * len(of) // count] for i in range(count)] for name, of in found.items() if of}
    return {name: sorted(set(members)) for name, members in spread.items()}


def usage_words(name: str, run: Record) -> str:
    """One line on one run: shares of the held-out images at each size, the predictor's doubt, the penalty."""
    m = run.metrics
    used = [f"{100 * share:.0f} % at {side} px" for share, side in zip(m["shares"], m["sides_px"], strict=True)]
    doubt = f"mean entropy of its probabilities {m['entropy']:.2f} nats"
    return f"- {name}: {', '.join(used)}; {doubt}; the penalty on the cost: {penalty(run)['state']}"


def sufficient_rows(evidence: Mapping[str, Sequence[Record]]) -> dict[str, list[float]]:
    """Histograms of each setting's first run: for what share each size is enough, or none is; and those chosen."""
    rows = {}
    for name, runs in evidence.items():
        for m in (run.metrics for run in runs[:1]):
            *large, least = m["sufficient_shares"]
            rows[f"enough, {name}"] = [*large, least - m["right_nowhere"], m["right_nowhere"]]
            rows[f"chosen, {name}"] = [*m["shares"], 0.0]
    return rows


def segments(evidence: Mapping[str, Sequence[Record]]) -> list[str]:
    """What the shares of `sufficient_rows` are of: the sizes from the largest, and none."""
    sides = next((run.metrics["sides_px"] for runs in evidence.values() for run in runs), [])
    return [*(f"{side} px" for side in sides), "right at none"]


def in_points(values: Sequence[float]) -> str:
    """Mean in points of top-1, signed, with the sample deviation where there are several."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):+.2f}{spread} points".replace("-", "−")


def macs_at(run: Record, by_choice: Mapping[str, int]) -> float:
    """Mean MACs an image of another network, predictor included, at the shares that this run's predictor chose.

    `by_choice` is that network's `drnet.macs_by_choice`.
    """
    *macs, predictor = by_choice.values()
    return predictor + sum(share * cost for share, cost in zip(run.metrics["shares"], macs, strict=True))


def penalties(evidence: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, float | str]]:
    """`penalty` of every run, by its setting and seed."""
    return {f"{name}, seed {run.seed}": penalty(run) for name, runs in evidence.items() for run in runs}


def penalty(run: Record) -> dict[str, float | str]:
    """What the penalty aimed at, what the gate expects and what the argmax spends, MACs with predictor; its state.

    The penalty sees the gate with its noise, so that is what it is judged by; inference takes the argmax.
    """
    m, config = run.metrics, run.config["method"]
    target = config["alpha"] * m["macs_by_side"][0] + m["macs_predictor"]
    reached = m["gate_macs"] + m["macs_predictor"]
    state = "active, within 5 % of alpha" if abs(reached / target - 1) <= 0.05 else "idle, the cost is lower"
    state = "too weak, the cost is higher" if reached / target > 1.05 else state
    spent = m["macs_expected"]
    return {"target": target, "reached": reached, "spent": spent, "state": state if config["eta"] else "none, eta is 0"}
