"""What the record of a search says, see `book.search_study.search` for what it holds: for figures, and in words."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean

from dynlib.book.records import Record
from dynlib.papers.s2dnas import Config
from dynlib.papers.s2dnas.exits import SHARED
from dynlib.papers.s2dnas.owners import edges, is_read
from dynlib.papers.s2dnas.search import chance_of

DRAWN_BY = {"policy": "controller", "untrained": "untrained controller", "random": "even draws"}
LITTLE = 0.05  # of the images
MOSTLY = 0.8  # of the images at exit 1: the rest hardly counts in a reward
SMALL = {  # what differs from the chapter's search where the space is ranked to the end
    "search_stages": 2,
    "search_groups": 4,
    "candidates": 40,
    "omegas": (),
    "ranked": 216,
}


def found_by(search: Record | None) -> Config | None:
    """The network that a search ended with."""
    return None if search is None else Config(search.metrics["found"]["cuts"], search.metrics["found"]["reuse"])


def rewards(search: Record | None) -> tuple[dict[str, list[float]], tuple[str, float] | None]:
    """Rewards draw by draw at the main omega, by who drew; the best of all architectures where these were ranked."""
    if search is None:
        return {}, None
    of = search.metrics["searches"][0]["rewards"]
    return {name: of[by] for by, name in DRAWN_BY.items()}, ("best of all", max(of["every"])) if "every" in of else None


def retrained(search: Record | None) -> list[dict]:
    """The candidates that were trained alone, for `tables_choices.retrained_table`; none without a record."""
    return [] if search is None else [one | {"by": DRAWN_BY[one["by"]]} for one in search.metrics["retrained"]]


def omega_plane(search: Record | None) -> dict[str, dict[str, tuple[float, float]]]:
    """(mean MACs, top-1) on held-out images of the best candidate for each omega, by who drew it; of equals one."""
    plane = {}
    for by, name in DRAWN_BY.items():
        points: dict[tuple[float, float], list[str]] = {}
        for of in [] if search is None else search.metrics["searches"]:
            best = of["best"][by]
            points.setdefault((best["macs"], best["top1"]), []).append(f"{of['omega']:g}".replace("-", "−"))
        plane[name] = {f"ω = {', '.join(omegas)}": point for point, omegas in points.items()}
    return plane


def drawn(config: Config | None, widths: Mapping[str, int]) -> tuple[dict[str, tuple[int, ...]], list[list[tuple]]]:
    """What `plots_choices.drawn_network` draws of a network with these channels by map size; nothing without one."""
    if config is None:
        return {}, []
    cuts, reuse = config.for_groups(len(widths))
    edge = {size: edges(width, row) for (size, width), row in zip(widths.items(), cuts, strict=True)}
    stages = range(config.stages)
    return edge, [[(i, j) for j in stages for i in range(j) if is_read(bits, i, j, len(stages))] for bits in reuse]


def minutes(search: Record) -> float:
    """What the whole search took."""
    return sum(search.metrics[f"{part}_s"] for part in ("weights", "candidates", "retraining")) / 60


def words(search: Record | None) -> str:
    """A list of sentences: the search's time, the controller beside its controls, its find, short against long."""
    if search is None:
        return "The search has no record yet."
    m, of = search.metrics, search.metrics["searches"][0]["rewards"]
    parts = [f"{m['weights_s']:.0f} s for the shared weights"] if m["weights_s"] >= 1 else []
    parts += [f"{m['candidates_s']:.0f} s for {m['measured']} candidates (median {m['seconds_a_candidate']:.2f} s)"]
    parts += [f"{m['retraining_s']:.0f} s for {len(m['retrained'])} trainings alone"]
    text = f"- **Time** on the proxy, {_proxy(search)}: {minutes(search):.1f} minutes of {m['clock']} time on "
    text += f"{search.environment['threads']} thread: "
    text += f"{', '.join(parts)}.\n"
    best = {by: max(of[by]) for by in DRAWN_BY}
    ahead = best["policy"] - max(best["untrained"], best["random"])
    right = m["searches"][0]["best"]["policy"]["top1"]  # a reward is this times a factor of the cost
    error = best["policy"] / right * sqrt(right * (1 - right) / search.config["proxy_held_out_images"])
    figures = ", ".join(f"{name} {best[by]:.4f}" for by, name in DRAWN_BY.items())
    text += f"- **Best reward of {len(of['policy'])} draws**: {figures}. "
    if ahead <= 0:
        text += "**The controller is not ahead:** "
    else:
        text += "The controller is ahead: " if ahead > 2 * error else "**These cannot be told apart:** "
    led = [max(one["policy"]) > max(one["untrained"] + one["random"]) for one in (s["rewards"] for s in m["searches"])]
    text += f"each is a maximum and biased upward, and the images leave it a standard error of {error:.3f}. Of "
    text += f"{len(led)} exponents the controller's best is ahead at {sum(led)}.\n"
    quarter = -(-len(of["policy"]) // 4)
    text += f"- **Does it learn?** Mean reward of the first quarter of its draws {_mean(of['policy'][:quarter])}, "
    text += f"of the last {_mean(of['policy'][-quarter:])}; of all draws of the untrained one "
    text += f"{_mean(of['untrained'])}, of even ones {_mean(of['random'])}.\n"
    shares = " / ".join(f"{100 * share:.0f}" for share in m["found"]["shares"])
    text += f"- **What was found**, trained alone: {shares} % of the proxy's held-out images leave at its exits, "
    text += (
        f"at the threshold {m['found']['threshold']:g}. {hardly_used([m['found']['shares']])} {at_the_lowest(search)}\n"
    )
    return text + f"{lead(search)}- **Short against longer training**: {agreement(search)}"


def at_the_lowest(search: Record) -> str:
    """How many of the best candidates, one an omega and who drew, have the lowest threshold on offer, and what it does.

    Under shared weights, which are rarely sure.
    """
    best = [one for of in search.metrics["searches"] for one in of["best"].values()]
    bound = [one["shares"][0] for one in best if one["threshold"] == min(SHARED)]
    text = (
        f"The lowest threshold on offer, {min(SHARED):g}, is that of {len(bound)} of the {len(best)} best candidates "
    )
    text += "under shared weights, over all omega"
    if not bound:
        return f"{text}: it binds none."
    text += f"; there {100 * mean(bound):.0f} % of the images leave at exit 1"
    return text + (", so **it is thin networks that were ranked, not stages**." if mean(bound) > MOSTLY else ".")


def hardly_used(runs: Sequence[Sequence[float]]) -> str:
    """A sentence on the exits where, of a run's `shares` by exit, fewer leave than `LITTLE`; all runs are told."""
    few = {f"exit {number}": of for number, of in enumerate(zip(*runs, strict=True), 1) if min(of) < LITTLE}
    told = [f"{name}, where {', '.join(f'{100 * share:.1f}' for share in of)} % leave" for name, of in few.items()]
    return f"Hardly used: {'; '.join(told)}." if few else f"Every exit is used by {100 * LITTLE:.0f} % or more."


def lead(search: Record) -> str:
    """A line of `words`: the controller's lead over even draws under shared weights, and after training alone."""
    both = {by: [one for one in search.metrics["retrained"] if one["by"] == by] for by in ("policy", "random")}
    if not all(both.values()):
        return ""
    shared, alone = (
        mean(map(pick, both["policy"])) - mean(map(pick, both["random"]))
        for pick in (lambda one: one["reward"], lambda one: one["alone"]["reward"])
    )
    text = f"- **What sharing weights adds**: the best of the controller lead those of even draws by {shared:+.3f} in "
    text += f"mean reward under shared weights, where they were picked, by {alone:+.3f} trained alone "
    return f"{text}(n = {len(both['policy'])} and {len(both['random'])}).\n".replace("-0", "−0")


def small_words(search: Record | None, command: str) -> str:
    """One paragraph on a search whose whole space was ranked: at which place the best of each kind of draws stands."""
    if search is None:
        return f"**Ranked to the end**: a small space, no record yet; `{command}` makes it."
    of = search.metrics["searches"][0]["rewards"]
    count, draws = len(of["every"]), len(of["policy"])
    places = [f"{name} number {1 + sum(r > max(of[by]) for r in of['every'])}" for by, name in DRAWN_BY.items()]
    text = f"**Ranked to the end**: all {count:,} networks of {search.config['search_stages']} stages in "
    text += f"{search.config['search_groups']} groups, by their reward. The best of {draws} draws each stands here: "
    text += (
        f"{', '.join(places)}; {draws} different even draws reach number {(count + 1) / (draws + 1):.1f} on average. "
    )
    return text + f"Short against longer training: {agreement(search)}"


def agreement(search: Record) -> str:
    """Kendall's tau of a search with its number of candidates, and what chance alone gives."""
    tau, count = search.metrics["kendall_tau"], len(search.metrics["retrained"])
    if tau is None:
        return "the two cannot be ranked against each other."
    chance = chance_of(tau, count)
    text = f"Kendall's tau is {tau:+.2f} over n = {count} candidates, half of them picked as the best; "
    text += f"{100 * chance:.0f} % of all orders are at least as far from 0"
    return text.replace("-", "−") + (". " if chance <= 0.05 else ", so it **says little**. ")


def _proxy(search: Record) -> str:
    config = search.config
    side = f" at {config['proxy_size_px']} px" if config["proxy_size_px"] else ""
    return f"{config['proxy_arch']}{side}"


def _mean(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}"
