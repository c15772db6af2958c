"""What the records of dynamic resolution say: every policy at its cost, and where a gain comes from.

Pure functions of training records, see `drnet_controls.report` for what these hold. All lists have one value a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from types import MappingProxyType

from dynlib.records import Record
from dynlib.student import beyond_chance

TRAINING, ECONOMY = "training at several sizes", "fewer pixels, blindly"
CHOICE, TOGETHER, CHEAPER = "the choice", "together", "over plain, trained at 96 px"
DYNAMIC, PERMUTED, NOISY = "dynamic choice", "its choices permuted", "drawn with noise, as in training"
MIXTURE, CASCADE, AT_ONE = "mixture of fixed sizes", "confidence cascade", ", same cost"
NONE: Mapping[int, Record] = MappingProxyType({})  # no record of any seed
Point = tuple[float, float]  # mean MACs or ms an image, top-1


def by_seed(runs: Iterable[Record]) -> dict[int, Record]:
    """Runs of one setting by their seed."""
    return {run.seed: run for run in runs}


def at_cost(points: Iterable[Point], cost: float) -> float | None:
    """Top-1 at a mean cost of `cost`: a random mixture of the two points next to it in cost, whatever they score.

    That of the dearest point where all cost less; None where every point costs more.
    """
    points = sorted(points)
    below, above = [p for p in points if p[0] <= cost], [p for p in points if p[0] > cost]
    if not below or not above:
        return below[-1][1] if below else None
    (least, low), (most, high) = below[-1], above[0]
    return low + (high - low) * (cost - least) / (most - least)


def outcomes(run: Record, plain: Record | None, small: Record | None = None) -> dict[str, Point]:
    """(MACs, top-1) of every policy for one trained network; `plain` is the network without choices, of the same seed,
    `small` the same trained and tested at a smaller size.

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
    if small is not None:
        found[f"the same, trained at {small.metrics['size_px']} px"] = (small.metrics["macs"], small.metrics["top1"])
    return found


def cascade(run: Record) -> list[Point]:
    """(MACs, top-1) of the confidence cascade at each threshold."""
    return list(zip(run.metrics["cascade_macs"], run.metrics["cascade_top1"], strict=True))


def policies(
    runs: Sequence[Record], plain: Mapping[int, Record], small: Mapping[int, Record] = NONE
) -> dict[str, dict[str, list[float]]]:
    """For every policy `macs`, `top1` and `behind`, the points of top-1 by which the dynamic choice is ahead of it."""
    table: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for name, (macs, top1) in outcomes(run, plain.get(run.seed), small.get(run.seed)).items():
            row = table.setdefault(name, {"macs": [], "top1": [], "behind": []})
            row["macs"].append(macs), row["top1"].append(top1)
            if name != DYNAMIC:
                row["behind"].append(run.metrics["top1"] - top1)
    return table


def parts(
    runs: Sequence[Record], plain: Mapping[int, Record], small: Mapping[int, Record] = NONE
) -> dict[str, list[float]]:
    """The gain of dynamic resolution over the plain network, as the sum of three parts; the first for seeds with both.

    Training: the same network with every image at full resolution, over the plain one. Fewer pixels: its choices dealt
    out at random, over full resolution for all. The choice: the same where they belong, over dealt out at random.
    Last, no part of the sum: the gain over `small`, the plain network trained and tested at a smaller size.
    """
    found: dict[str, list[float]] = {TRAINING: [], ECONOMY: [], CHOICE: [], TOGETHER: [], CHEAPER: []}
    for run in runs:
        blind, full = run.metrics["permuted_top1"], run.metrics["fixed_top1"][0]
        found[ECONOMY].append(blind - full)
        found[CHOICE].append(run.metrics["top1"] - blind)
        if run.seed in plain:
            found[TRAINING].append(full - plain[run.seed].metrics["top1"])
            found[TOGETHER].append(run.metrics["top1"] - plain[run.seed].metrics["top1"])
        if run.seed in small:
            found[CHEAPER].append(run.metrics["top1"] - small[run.seed].metrics["top1"])
    return found


def spent(
    runs: Sequence[Record], plain: Mapping[int, Record], small: Mapping[int, Record] = NONE
) -> dict[str, list[float]]:
    """MACs an image behind the differences of `parts`: of the dynamic network, the plain one, and the smaller one."""
    found = {"dynamic": [run.metrics["macs_expected"] for run in runs]}
    return found | {
        name: [of.metrics["macs"] for of in by.values()] for name, by in (("plain", plain), ("96 px", small))
    }


def tallies(settings: Mapping[str, tuple]) -> tuple[dict, dict]:
    """`parts` and `spent` of every setting, by its name; their arguments are the values."""
    return tuple({name: of(*given) for name, given in settings.items()} for of in (parts, spent))


def several_sizes(first: Mapping[int, Record], plain: Mapping[int, Record], small: Mapping[int, Record]) -> dict:
    """What training at several sizes is worth without any choice, by size: `first` over a plain network of that size.

    `first` trained at all sizes, without a predictor; `plain` and `small` at one each. Fractions of top-1, one a seed
    that has both.
    """
    found = {"at full size": [], "at 96 px": []}
    for gains, alone in zip(found.values(), (plain, small), strict=True):
        for seed in first.keys() & alone.keys():
            m, one = first[seed].metrics, alone[seed].metrics
            gains.append(m["fixed_top1"][m["sides_px"].index(one["size_px"])] - one["top1"])
    return found


def sampling_error(runs: Sequence[Record]) -> float:
    """Binomial standard error of one run's top-1 that the finite test set leaves, mean over runs."""
    each = [(run.metrics["top1"], run.dataset["test_images"]) for run in runs]
    return mean((top1 * (1 - top1) / count) ** 0.5 for top1, count in each)


def collapsed(evidence: Mapping[str, Sequence[Record]]) -> str:
    """One sentence on the settings whose every run sends nearly all images to one size."""
    names = {name: _single([run.metrics for run in runs]) for name, runs in evidence.items()}
    found = {name: sorted({m["sides_px"][j] for m, j in of}) for name, of in names.items() if of}
    found = {name: sides for name, sides in found.items() if len(names[name]) == len(evidence[name])}
    said = [f"{name} ({' or '.join(f'{side} px' for side in sides)})" for name, sides in found.items()]
    return f"**No choice is made**, more than 99 % of the images go to one size: {'; '.join(said)}." * bool(said)


def answer(name: str, runs: Sequence[Record], plain: Mapping[int, Record], small: Mapping[int, Record] = NONE) -> str:
    """One paragraph, in words and points of top-1: how much is the choice, how much multi-resolution training.

    Bold is only what exceeds `sampling_error` and the deviation over seeds.
    """
    if not runs:
        return f"**{name}**: no record yet."
    found, m, error = parts(runs, plain, small), [run.metrics for run in runs], sampling_error(runs)
    text = f"**{name}** (n = {len(runs)}). {_collapse(m)}"
    if (lost := mean(one["right_nowhere"] for one in m)) > 0.5:
        text += f"{100 * lost:.0f} % of the test images are right at no size: **too weak to bear on the question**. "
    if len(_single(m)) < len(m):
        text += f"The choice itself: {_bold(found[CHOICE], error)} against the same choices dealt out at random"
        text += "" if _single(m) else f", {_deals(m)}"
        text += f"; {_established(found[CHOICE], error)}. "
    text += f"Fewer pixels, blindly: {_bold(found[ECONOMY], error)}. "
    cost = {name: f"{mean(macs) / 1e6:.1f} M" for name, macs in spent(runs, plain, small).items() if macs}
    if found[TRAINING]:
        text += f"Training at several sizes: {_bold(found[TRAINING], error)} with every image at full size, against "
        text += f"the plain network of as many epochs (n = {len(found[TRAINING])}). "
        text += f"Together, dynamic resolution at {cost['dynamic']} MACs against the plain network at {cost['plain']}: "
        text += f"{_bold(found[TOGETHER], error)}. "
    else:
        text += "What training at several sizes is worth cannot be told: no plain network of the same seed. "
    if found[CHEAPER]:
        text += f"Against the plain network trained and tested at 96 px, {cost['96 px']} MACs: "
        text += f"{_bold(found[CHEAPER], error)} (n = {len(found[CHEAPER])}). "
    table = policies(runs, plain)
    rivals = {name: table[f"{name}{AT_ONE}"]["behind"] for name in (MIXTURE, CASCADE) if f"{name}{AT_ONE}" in table}
    against = [f"a {name}: {in_points(behind)}" for name, behind in rivals.items()]
    text += f"At the cost of the dynamic choice, against {', against '.join(against)}. " if against else ""
    text += f"The {runs[0].dataset['test_images']:,} test images alone leave a standard error of {100 * error:.1f} "
    return text + "points; no smaller difference decides anything."


def answers(settings: Mapping[str, tuple]) -> str:
    """`answer` for every setting, by its name; its arguments are the values. First, once, where no choice is made."""
    said = [collapsed({name: runs for name, (runs, *_) in settings.items()})]
    said += [answer(name, *given) for name, given in settings.items()]
    return "\n\n".join(said) if settings else "No record yet."


def _bold(values: Sequence[float], error: float) -> str:
    noise = max(error, stdev(values) if len(values) > 1 else 0)
    return f"**{in_points(values)}**" if abs(mean(values)) > noise else in_points(values)


def _collapse(metrics: Sequence[Mapping]) -> str:
    """What must be said first: in how many runs nearly all images are sent to one size, and whether it is the best."""
    single = _single(metrics)
    if not single:
        return ""
    where = " or ".join(f"{side} px" for side in sorted({m["sides_px"][j] for m, j in single}))
    best = sum(m["fixed_top1"][j] == max(m["fixed_top1"]) for m, j in single)
    text = f"{len(single)} of {len(metrics)} runs choose nothing but {where}, in {best} the best single size; always "
    text += (
        "that size would do the same without the predictor's cost. With the noise of training other sizes are drawn "
    )
    return text + f"too (mean entropy {mean(m['entropy'] for m, _ in single):.2f} nats). "


def _established(values: Sequence[float], error: float) -> str:
    if len(values) < 2:
        return "one seed tells no spread"
    if abs(mean(values)) <= error:
        return "less than the test set can tell"
    return f"over seeds that is {'' if beyond_chance(values) else 'not '}beyond chance (Student's t, 95 %)"


def _deals(metrics: Sequence[Mapping]) -> str:
    """How far the choice stands from random deals of itself, in their standard deviations, run by run."""
    far = [(m["top1"] - m["permuted_top1"]) / m["permuted_std"] for m in metrics]
    return f"{', '.join(f'{value:+.1f}' for value in far)} standard deviations of a random deal".replace("-", "−")


def _single(metrics: Sequence[Mapping]) -> list[tuple[Mapping, int]]:
    """The runs that send nearly all images to one size, and which."""
    return [(m, m["shares"].index(max(m["shares"]))) for m in metrics if max(m["shares"]) > 0.99]


def plane(
    evidence: Mapping[str, Sequence[Record]], plain: Mapping[int, Record], small: Mapping[int, Record] = NONE
) -> dict[str, list[Point]]:
    """For a figure: every family of policies as its points (mean MACs, mean top-1), each the mean over seeds.

    `evidence` has the runs of several settings; what a network does at fixed sizes, in a cascade, at random or with an
    oracle is that of the first of them, and is empty where that has no run.
    """
    each = [policies(runs, plain) for runs in evidence.values()]
    first, runs = each[0], next(iter(evidence.values()))

    def all_of(tables: Sequence[Mapping], start: str) -> list[Point]:
        found = [row for table in tables for name, row in table.items() if name.startswith(start)]
        return [(mean(row["macs"]), mean(row["top1"])) for row in found]

    alone = [
        tuple(mean(run.metrics[of] for run in by.values()) for of in ("macs", "top1")) for by in (plain, small) if by
    ]
    steps = zip(*map(cascade, runs), strict=True)  # of all seeds, a threshold at a time
    return {
        DYNAMIC: all_of(each, DYNAMIC),
        PERMUTED: all_of(each, PERMUTED),
        "always one size": all_of([first], "always"),
        CASCADE: [tuple(map(mean, zip(*step, strict=True))) for step in steps],
        "oracle": all_of([first], "oracle"),
        "plain network": alone,
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

    The penalty sees the gate with its noise, so that is what it is judged by; inference takes the argmax. It is active
    where the gate costs alpha or more, within a hundredth, and `held` where that is within 5 % of the target.
    """
    m, config = run.metrics, run.config["method"]
    aim = config["alpha"] * m["macs_by_side"][0]
    target, reached = aim + m["macs_predictor"], m["gate_macs"] + m["macs_predictor"]
    state = "active" if m["gate_macs"] >= 0.99 * aim else "idle, the cost is lower"
    state = state if config["eta"] else "none, eta is 0"
    held = abs(reached / target - 1) <= 0.05
    return {"target": target, "reached": reached, "spent": m["macs_expected"], "state": state, "held": held}
