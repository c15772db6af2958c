"""What records of dynamic resolution spend: where images go, what the penalty holds, what the clock says of it.

Pure functions of records, see `papers.drnet.policies.report` for what these hold.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from dynlib.book.legacy.drnet_answer import DYNAMIC, FAMILIES, PERMUTED, SIZES, Point
from dynlib.book.records import Record


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


def divided(evidence: Mapping[str, Sequence[Record]]) -> Record | None:
    """The run that spreads the images most evenly over its sizes; None where there is no run."""
    each = [run for runs in evidence.values() for run in runs]
    return min(each, key=lambda run: max(run.metrics["shares"]), default=None)


def histograms(evidence: Mapping[str, Sequence[Record]]) -> dict[str, list[float]]:
    """For what share of the images each size is enough, or none is, in the first setting; then what each chooses.

    Means over seeds, from the largest size, last what is right at none.
    """
    rows = {}
    for name, runs in evidence.items():
        if not rows and runs:
            *large, least, nowhere = _means([[*m["sufficient_shares"], m["right_nowhere"]] for m in _metrics(runs)])
            rows[f"enough, {name}"] = [*large, least - nowhere, nowhere]
        rows |= {f"chosen, {name}": [*_means([m["shares"] for m in _metrics(runs)]), 0.0]} if runs else {}
    return rows


def segments(evidence: Mapping[str, Sequence[Record]]) -> list[str]:
    """What the shares of `histograms` are of: the sizes from the largest, and none."""
    sides = next((run.metrics["sides_px"] for runs in evidence.values() for run in runs), [])
    return [*(f"{side} px" for side in sides), "right at none"]


def _metrics(runs: Sequence[Record]) -> list[Mapping]:
    return [run.metrics for run in runs]


def _means(lists: Sequence[Sequence[float]]) -> list[float]:
    return [mean(values) for values in zip(*lists, strict=True)]


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
    where the gate costs alpha or more, within a hundredth, and then `held` where that is within 5 % of the target.
    """
    m, config = run.metrics, run.config["method"]
    aim = config["alpha"] * m["macs_by_side"][0]
    target, reached = aim + m["macs_predictor"], m["gate_macs"] + m["macs_predictor"]
    state = "active" if m["gate_macs"] >= 0.99 * aim else "idle, the cost is lower"
    state = state if config["eta"] else "none, eta is 0"
    held = abs(reached / target - 1) <= 0.05 if state == "active" else None
    return {"target": target, "reached": reached, "spent": m["macs_expected"], "state": state, "held": held}


def penalty_words(evidence: Mapping[str, Sequence[Record]]) -> str:
    """One paragraph: where an active penalty holds the cost, where not, each with expected over target cost by run."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for name, runs in evidence.items():
        active = [one for one in map(penalty, runs) if one["state"] == "active"]
        for held, told in found.items():
            if ratios := [f"{one['reached'] / one['target']:.2f}" for one in active if one["held"] is held]:
                told.append(f"{name} ({', '.join(ratios)})")
    text = "Where the penalty is active, the expected cost is within 5 % of alpha plus the predictor in "
    text += "; ".join(found[True]) or "no setting"
    text += f"; not in {'; '.join(found[False])}" if found[False] else ""
    m = next(iter(evidence.values()))[0].metrics
    share = 100 * m["macs_predictor"] / m["macs_by_side"][0]
    spent = [one["spent"] / one["target"] for runs in evidence.values() for one in map(penalty, runs) if one["held"]]
    if spent:
        text += (
            f". Where it holds, the argmax spends {min(spent):.2f} to {max(spent):.2f} times as much as the target: "
        )
        text += "alpha governs the gate with its noise, not the cost at inference"
    return f"{text}. The predictor takes {share:.1f} % of what the classifier takes at full resolution."


def settings(evidence: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, list[float]]]:
    """For a figure: `top1` and `permuted` of every run, and costs as shares of that at full resolution.

    The cost aimed at (`target`, none without a penalty), what the gate expects and the argmax spends, with predictor.
    """
    rows = {}
    for name, runs in evidence.items():
        row = rows[name] = {"top1": [], "permuted": [], "target": [], "expected": [], "spent": []}
        for run in runs:
            row["top1"].append(run.metrics["top1"])
            row["permuted"].append(run.metrics["permuted_top1"])
            one, full = penalty(run), run.metrics["macs_by_side"][0]
            row["target"] += [one["target"] / full] if run.config["method"]["eta"] else []
            row["expected"].append(one["reached"] / full)
            row["spent"].append(one["spent"] / full)
    return rows


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
    choosing, found = choosing_ms(mixture, alone), {name: [] for name in FAMILIES}
    for runs in filter(None, evidence.values()):
        spent = mean(choosing + _mixed(run.metrics["shares"], alone) for run in runs)
        found[DYNAMIC].append((spent, mean(run.metrics["top1"] for run in runs)))
        found[PERMUTED].append((spent, mean(run.metrics["permuted_top1"] for run in runs)))
    fixed = map(mean, zip(*(run.metrics["fixed_top1"] for run in next(iter(evidence.values()))), strict=True))
    found[SIZES] = [(run.metrics["method_ms"], top1) for run, top1 in zip(alone, fixed, strict=False)]
    return found


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
