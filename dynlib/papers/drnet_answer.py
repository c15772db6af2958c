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


def tallies(settings: Mapping[str, tuple]) -> tuple[dict, dict]:
    """`parts` of every setting, and the MACs an image behind them, by its name; arguments of `parts` are the values."""
    macs = {name: {"dynamic": [run.metrics["macs_expected"] for run in runs]} for name, (runs, *_) in settings.items()}
    return {name: parts(*given) for name, given in settings.items()}, macs


def several_sizes(plain: Mapping[int, Record], small: Mapping[int, Record], first: Mapping[int, Record]) -> dict:
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


def verdict(settings: Mapping[str, tuple], several: Mapping[str, Sequence[float]]) -> str:
    """Does it help, by how much, and is it the choice: one paragraph; arguments as of `answers`, from `several_sizes`.

    A choice is shown to help where it is beyond `sampling_error` and, over seeds, beyond chance.
    """
    found = {name: parts(*given) for name, given in settings.items()}
    together = [mean(of[TOGETHER]) for of in found.values() if of[TOGETHER]]
    if not together:
        return "That is told here once there are records."
    divided = {name: runs for name, (runs, *_) in settings.items() if _divides(runs)}
    shown = [name for name, runs in divided.items() if _helps(found[name][CHOICE], sampling_error(runs))]
    pairs = [[(run, plain.get(run.seed)) for run in runs] for runs, plain, _ in settings.values()]
    shares = [[100 * a.metrics["macs_expected"] / b.metrics["macs"] for a, b in of if b] for of in pairs]
    mixed = [policies(runs, NONE).get(f"{MIXTURE}{AT_ONE}") for runs, *_ in settings.values()]
    mixed = [mean(row["behind"]) for row in mixed if row]
    text = f"**Choosing is shown to help in {', '.join(shown) or f'none of our {len(settings)} settings'}.** "
    text += (
        f"With {_between([mean(of) for of in shares if of], '.0f', 1)} % of the plain network's multiply-accumulates "
    )
    text += f"dynamic resolution scores {_between(together)} points beside it; against a random mixture of fixed sizes "
    text += (
        f"of the same classifier, at the same cost, {_between(mixed)} points. " if mixed else "of its cost, nothing. "
    )
    text += f"In {len(settings) - len(divided)} of {len(settings)} settings every image goes to one size"
    gained = [mean(found[name][CHOICE]) for name in divided]
    text += (
        f"; elsewhere the choice is worth {_between(gained)} points over itself dealt out at random" if gained else ""
    )
    told = [f"{in_points(gains)} {where}" for where, gains in several.items() if gains]
    text += f". Training at several sizes, without any choice, is worth {' and '.join(told)}" if told else ""
    error = mean(sampling_error(runs) for runs, *_ in settings.values())
    return f"{text}. The test images alone leave a standard error of {100 * error:.1f} points."


def answers(settings: Mapping[str, tuple]) -> str:
    """What the choice is worth in every setting that makes one, and which make none: (runs, plain, small) by name."""
    given = {name: runs for name, (runs, *_) in settings.items()}
    said = [answer(name, runs) for name, runs in given.items() if _divides(runs)]
    said += [f"- {collapsed(given)}"] * bool(collapsed(given))
    errors = {runs[0].dataset["test_images"]: sampling_error(runs) for runs in given.values()}
    told = [
        f"{count:,} test images alone leave a standard error of {100 * e:.1f} points" for count, e in errors.items()
    ]
    return (
        "\n".join([*said, f"\n{', '.join(told)}; no smaller difference decides anything."])
        if given
        else "No record yet."
    )


def answer(name: str, runs: Sequence[Record]) -> str:
    """One line, in points of top-1: what choosing is worth, and how it does against policies of the same cost.

    Bold is only what exceeds `sampling_error` and the deviation over seeds.
    """
    gains, error = [run.metrics["top1"] - run.metrics["permuted_top1"] for run in runs], sampling_error(runs)
    noise = max(error, stdev(gains) if len(gains) > 1 else 0)
    worth = f"**{in_points(gains)}**" if abs(mean(gains)) > noise else in_points(gains)
    text = f"- **{name}** (n = {len(runs)}): the choice is worth {worth}, {_deals(runs)}; {_established(gains, error)}."
    table = policies(runs, NONE)
    rivals = {rival: table.get(f"{rival}{AT_ONE}") for rival in (MIXTURE, CASCADE)}
    against = [f"a {rival}: {in_points(row['behind'])}" for rival, row in rivals.items() if row]
    text += f" At its cost, against {', against '.join(against)}." if against else ""
    if (lost := mean(run.metrics["right_nowhere"] for run in runs)) > 0.5:
        text += f" With {100 * lost:.0f} % of the test images right at no size, **too weak to bear on the question**."
    return text


def collapsed(evidence: Mapping[str, Sequence[Record]]) -> str:
    """One sentence on the settings whose every run sends nearly all images to one size."""
    sides = {name: sorted({_most_used(run) for run in runs}) for name, runs in evidence.items() if not _divides(runs)}
    said = [f"{name} ({' or '.join(f'{side} px' for side in of)})" for name, of in sides.items()]
    text = f"**No choice is made**, more than 99 % of the images go to one size: {'; '.join(said)}. That size for all "
    return f"{text}would do the same without the predictor's cost." * bool(said)


def _most_used(run: Record) -> int:
    m = run.metrics
    return m["sides_px"][m["shares"].index(max(m["shares"]))]


def _divides(runs: Sequence[Record]) -> bool:
    """Whether any run sends more than a hundredth of the images to another size than the rest."""
    return any(max(run.metrics["shares"]) <= 0.99 for run in runs)


def _between(values: Sequence[float], form: str = "+.2f", scale: float = 100) -> str:
    low, high = (f"{scale * end(values):{form}}".replace("-", "−") for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _helps(gains: Sequence[float], error: float) -> bool:
    return mean(gains) > error and beyond_chance(gains)


def _established(values: Sequence[float], error: float) -> str:
    if len(values) < 2:
        return "one seed tells no spread"
    if abs(mean(values)) <= error:
        return "less than the test set can tell"
    return f"over seeds {'' if beyond_chance(values) else 'not '}beyond chance (Student's t, 95 %)"


def _deals(runs: Sequence[Record]) -> str:
    """How far the choice stands from random deals of itself, in their standard deviations, run by run that divides."""
    of = [run.metrics for run in runs if run.metrics["permuted_std"]]
    far = [f"{(m['top1'] - m['permuted_top1']) / m['permuted_std']:+.1f}" for m in of]
    return f"{', '.join(far)} standard deviations of a random deal".replace("-", "−")


def plane(
    evidence: Mapping[str, Sequence[Record]], plain: Mapping[int, Record], small: Mapping[int, Record] = NONE
) -> dict[str, list[Point]]:
    """For a figure: every family of policies as its points (mean MACs, mean top-1), each the mean over seeds.

    `evidence` has the runs of several settings; what a network does at fixed sizes, in a cascade, at random or with an
    oracle is that of the first of them, and is empty where that has no run. A cascade dearer than full resolution for
    all is left out.
    """
    each = [policies(runs, plain) for runs in evidence.values()]
    first, runs = each[0], next(iter(evidence.values()))

    def all_of(tables: Sequence[Mapping], start: str) -> list[Point]:
        found = [row for table in tables for name, row in table.items() if name.startswith(start)]
        return [(mean(row["macs"]), mean(row["top1"])) for row in found]

    alone = [
        tuple(mean(run.metrics[of] for run in by.values()) for of in ("macs", "top1")) for by in (plain, small) if by
    ]
    steps = [tuple(map(mean, zip(*step, strict=True))) for step in zip(*map(cascade, runs), strict=True)]
    sizes = all_of([first], "always")
    return {
        DYNAMIC: all_of(each, DYNAMIC),
        PERMUTED: all_of(each, PERMUTED),
        "always one size": sizes,
        CASCADE: [step for step in steps if step[0] <= max(sizes)[0]],
        "oracle": all_of([first], "oracle"),
        "plain network": alone,
        "uniform random": all_of([first], "uniform"),
    }


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


def in_points(values: Sequence[float]) -> str:
    """Mean in points of top-1, signed, with the sample deviation where there are several."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):+.2f}{spread} points".replace("-", "−")
