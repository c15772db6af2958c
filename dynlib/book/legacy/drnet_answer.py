"""What the records of dynamic resolution say: every policy at its cost, and where a gain comes from.

Pure functions of training records, see `policies.report` for what these hold. All lists have one value a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from types import MappingProxyType

from dynlib.book.legacy.student import beyond_chance, in_points
from dynlib.book.records import Record

TRAINING, ECONOMY = "several sizes", "fewer pixels, blindly"
CHOICE, TOGETHER = "the choice", "together"
DYNAMIC, PERMUTED, NOISY = "dynamic choice", "its choices permuted", "drawn with noise, as in training"
MIXTURE, CASCADE, AT_ONE = "mixture of fixed sizes", "confidence cascade", ", same cost"
SIZES, UNIFORM, ORACLE = "always one size", "uniform random", "oracle"
NEAR = 0.15  # of a cost
MOSTLY = 0.99  # of the images
FAMILIES = (SIZES, DYNAMIC, CASCADE, UNIFORM, ORACLE, "plain network", PERMUTED)  # of `plane`, in the order of marks
SURE = 1.96  # standard deviations: 95 % of a normal distribution, two-sided
NONE: Mapping[int, Record] = MappingProxyType({})  # no record of any seed
Point = tuple[float, float]  # mean MACs or ms an image, top-1


def by_seed(runs: Iterable[Record]) -> dict[int, Record]:
    """Runs of one setting by their seed."""
    return {run.seed: run for run in runs}


def at_cost(points: Iterable[Point], cost: float) -> float | None:
    """Top-1 at a mean cost: that of a random mixture of the two points next to it in cost, whatever they score.

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
    found[UNIFORM] = (m["uniform_macs"], mean(m["uniform_top1"]))
    found |= {f"always {side} px": point for side, point in zip(m["sides_px"], fixed, strict=True)}
    found[f"{ORACLE}, smallest sufficient"] = (m["sufficient_macs"], m["sufficient_top1"])
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


def tallies(settings: Mapping[str, tuple]) -> tuple[dict, dict]:
    """`parts` of every setting, and the MACs an image behind them, by its name; (runs, plain, small) are the values."""
    macs = {name: {"dynamic": [run.metrics["macs_expected"] for run in runs]} for name, (runs, *_) in settings.items()}
    return {name: parts(runs, plain) for name, (runs, plain, _) in settings.items()}, macs


def ahead(settings: Mapping[str, tuple]) -> dict[str, dict[str, list[float]]]:
    """By how much the dynamic choice of every setting is ahead of rivals at its cost, the last within NEAR of it."""
    found = {}
    for name, (runs, _, small) in settings.items():
        table = policies(runs, NONE)
        found[name] = {f"of a {of}": table.get(f"{of}{AT_ONE}", {"behind": []})["behind"] for of in (MIXTURE, CASCADE)}
        found[name]["of a plain network at 96 px"] = [
            run.metrics["top1"] - small[run.seed].metrics["top1"]
            for run in runs
            if run.seed in small and abs(run.metrics["macs_expected"] / small[run.seed].metrics["macs"] - 1) <= NEAR
        ]
    return found


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

    A choice is shown to help where it is beyond luck in dealing and, over seeds, beyond chance.
    """
    found, _ = tallies(settings)
    beside = {}  # by setting: share of the plain network's MACs in %, points beside it
    for name, (runs, plain, _) in settings.items():
        if both := [(run, plain[run.seed]) for run in runs if run.seed in plain]:
            share = mean(100 * run.metrics["macs_expected"] / alone.metrics["macs"] for run, alone in both)
            beside[name] = (share, found[name][TOGETHER])
    cheaper = {name: pair for name, pair in beside.items() if pair[0] < 100}
    if not cheaper:
        return "That is told here once there are records."
    best, least = max(cheaper, key=lambda name: mean(cheaper[name][1])), min(cheaper, key=lambda name: cheaper[name][0])
    divided = {name: runs for name, (runs, *_) in settings.items() if _divides(runs)}
    shown = [name for name, runs in divided.items() if luck(runs) > SURE and beyond_chance(found[name][CHOICE])]
    mixed = [mean(of[f"of a {MIXTURE}"]) for of in ahead(settings).values() if of[f"of a {MIXTURE}"]]
    able = [name for name, runs in divided.items() if len(runs) > 1]
    text = f"Of {len(settings)} settings, {len(able)} can show whether choosing helps: with more than one seed and a "
    text += f"predictor that uses more than one size. **Choosing is shown to help in {', '.join(shown) or 'none'}.** "
    told = [
        f"{in_points(cheaper[of][1])} points with {cheaper[of][0]:.0f} % of its operations "
        f"({of}{'' if of in divided else ', one size for all'})"
        for of in (best, least)
    ]
    text += f"Beside the plain network, the best of the cheaper ones on these test images scores {told[0]}, the "
    text += f"cheapest {told[1]}"
    text += (
        f". Beside a random mixture of their own fixed sizes at equal cost all score {_between(mixed)}" if mixed else ""
    )
    text += f". In {len(settings) - len(divided)} of {len(settings)} settings nearly every image goes to one size"
    gained = [mean(found[name][CHOICE]) for name in divided]
    text += f"; elsewhere choosing is worth {_between(gained)} points over a random deal of it" if gained else ""
    told = [f"{in_points(gains)} points {where} (n = {len(gains)})" for where, gains in several.items() if gains]
    text += f". Training at several sizes, without any choice, is worth {' and '.join(told)}" if told else ""
    error = mean(sampling_error(runs) for runs, *_ in settings.values())
    return f"{text}. The test images leave every top-1 a standard error of {100 * error:.1f} points."


def answers(settings: Mapping[str, tuple]) -> str:
    """What the choice is worth in every setting that makes one, and which make none: (runs, plain, small) by name."""
    given = {name: runs for name, (runs, *_) in settings.items()}
    divided = {name: runs for name, runs in given.items() if _divides(runs)}
    said = [f"**{name}**: the choice is worth {worth(runs)}." for name, runs in divided.items() if len(runs) > 1]
    if once := [f"{name} {worth(runs)}" for name, runs in divided.items() if len(runs) == 1]:
        said.append(f"With one seed, which tells no spread: {'; '.join(once)}.")
    if none := collapsed(given):
        said.append(none)
    if weak := [name for name, runs in given.items() if mean(run.metrics["right_nowhere"] for run in runs) > 0.5]:
        said.append(f"Most test images are right at no size, **too weak to bear on the question**: {', '.join(weak)}.")
    for count, error in {runs[0].dataset["test_images"]: sampling_error(runs) for runs in given.values()}.items():
        text = f"{count:,} test images leave every top-1 a standard error of {100 * error:.1f} points; policies of one"
        said.append(f"{text} network, which see the same images, differ with less.")
    return "\n".join(f"- {line}" for line in said) or "No record yet."


def worth(runs: Sequence[Record]) -> str:
    """What choosing is worth in points of top-1; bold where neither luck in dealing nor the seeds explain it."""
    gains = parts(runs, NONE)[CHOICE]
    text = f"{in_points(gains)} points ({luck(runs):+.1f} standard deviations of a random deal)".replace("-", "−")
    if len(gains) < 2:
        return text
    if abs(luck(runs)) < SURE:
        return f"{text}: no more than luck in dealing"
    return f"**{text}: beyond chance**" if beyond_chance(gains) else f"{text}: over seeds not beyond chance"


def luck(runs: Sequence[Record]) -> float:
    """By how many of its standard deviations under random deals the mean worth of the choice is above 0."""
    spread = sum(run.metrics["permuted_std"] ** 2 for run in runs) ** 0.5
    return sum(parts(runs, NONE)[CHOICE]) / spread if spread else 0.0


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
    return any(max(run.metrics["shares"]) <= MOSTLY for run in runs)


def _between(values: Sequence[float]) -> str:
    low, high = (f"{100 * end(values) + 0:+.2f}".replace("-", "−") for end in (min, max))
    return low if low == high else f"{low} to {high}"


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
    dynamic, permuted = all_of(each, DYNAMIC), all_of(each, PERMUTED)
    stepwise = [step for step in steps if step[0] <= max(sizes)[0]]
    found = (sizes, dynamic, stepwise, all_of([first], UNIFORM), all_of([first], ORACLE), alone, permuted)
    return dict(zip(FAMILIES, found, strict=True))


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
