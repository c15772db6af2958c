"""What the records of stages are made to say, from records with known numbers; and the lines of the counted tables."""

from types import SimpleNamespace

import pytest

from dynlib.papers import s2dnas_counts, s2dnas_evidence
from dynlib.papers.s2dnas import Config
from dynlib.papers.s2dnas_evidence import FIXED, FOUND, STATIC


def outcome(held_out_top1, held_out_macs, top1, macs):
    return {"held_out_top1": held_out_top1, "held_out_macs": held_out_macs, "top1": top1, "macs": macs}


def run(seed, top1, macs, *, outcomes=(), exits=1):
    """A record's part that is read here."""
    whole = {
        "exit_top1": [top1] * exits,
        "exit_share": [1 / exits] * exits,
        "leaver_top1": [top1, *[None] * (exits - 1)],
    }
    costs = {"macs": 100, "expected_macs": macs, "exit_macs": [macs * (k + 1) for k in range(exits)]}
    return SimpleNamespace(seed=seed, metrics={"top1": top1, "rules": {"quota": list(outcomes)}} | whole | costs)


def thinned(seed, top1, macs):
    made = run(seed, top1, macs)
    made.metrics["macs"] = macs
    return made


CHEAP, MIDDLE, DEAR = outcome(0.5, 20, 0.52, 21), outcome(0.6, 40, 0.58, 41), outcome(0.7, 80, 0.71, 79)
STAGED = [run(seed, 0.7, 60, outcomes=(CHEAP, MIDDLE, DEAR), exits=3) for seed in (0, 1)]


def test_what_is_picked_within_a_budget_is_picked_by_the_held_out_images_alone():
    better_on_test = outcome(0.59, 30, 0.99, 30)
    one = run(0, 0.7, 60, outcomes=(CHEAP, better_on_test, MIDDLE, DEAR), exits=3)
    assert s2dnas_evidence.within(one, 50) == MIDDLE
    assert s2dnas_evidence.within(one, 80) == DEAR
    assert s2dnas_evidence.within(one, 19) is None
    as_accurate = outcome(0.6, 35, 0.1, 35)
    assert s2dnas_evidence.within(run(0, 0, 0, outcomes=(MIDDLE, as_accurate)), 50) == as_accurate


def test_against_a_thinned_network_only_seeds_with_both_count():
    runs = {FIXED: STAGED, "thinned to width 8": [thinned(0, 0.55, 45)], "thinned to width 2": [thinned(0, 0.1, 5)]}
    table = s2dnas_evidence.against_thinned(FIXED, runs)
    row = table["thinned to width 8"]
    assert (row["budget"], row["ours"], row["macs"]) == ([45], [0.58], [41])
    assert row["gain"] == [pytest.approx(0.03)]
    assert (table["thinned to width 2"]["gain"], table["thinned to width 2"]["dear"]) == ([], [5])
    assert s2dnas_evidence.against_thinned(FOUND, runs)["thinned to width 8"]["gain"] == []


def table_of(*gains):
    return {f"thinned to width {n}": {"gain": list(of), "dear": []} for n, of in enumerate(gains)}


def test_the_verdict_says_plainly_whether_three_budgets_were_shown():
    good = s2dnas_evidence.verdict("x", table_of((0.02, 0.022), (0.03, 0.031), (0.01, 0.011)))
    assert "above uniform thinning at 3 of 3 budgets" in good and "That is what was to be shown." in good
    lucky = s2dnas_evidence.verdict("x", table_of((0.02, 0.022), (0.01, 0.03), (0.01, 0.011)))
    assert "at 2 of them beyond" in lucky and "they are not" in lucky
    assert "at 3 of them beyond" in good and "width 0 +2.10 ± 0.14 (n = 2)" in good
    bad = s2dnas_evidence.verdict("x", table_of((0.02, 0.05), (-0.01, -0.02), (0.001, 0.03)))
    assert "at 2 of 3 budgets, at 0 of them" in bad and "they are not" in bad and "width 1 −1.50 ± 0.71" in bad
    dear = table_of((0.02,), (), ())
    dear["thinned to width 1"]["dear"] = [5]
    words = s2dnas_evidence.verdict("x", dear)
    assert "at 1 of 1 budgets" in words and "first exit costs more than these: thinned to width 1." in words
    assert "they are not" in words
    one = s2dnas_evidence.verdict("x", table_of((0.02,)))
    assert "at 1 of 1 budgets, at 0 of them" in one and "to be shown" not in one
    assert s2dnas_evidence.verdict("x", table_of((), ())).endswith("no record yet.")


def test_rows_take_losses_from_the_static_network_of_the_same_seed():
    rows = s2dnas_evidence.rows({STATIC: [thinned(0, 0.8, 100)], FIXED: STAGED, "MSDNet": []})
    assert rows[FIXED]["static_top1"] == [0.8, None] and rows[FIXED]["macs"] == [60, 60]
    assert [rows[name]["kind"] for name in rows] == ["static", "dynamic", ""]


def test_stages_are_told_one_by_one_and_nobody_leaving_is_no_number():
    rows = s2dnas_evidence.stage_rows(STAGED)
    assert list(rows) == ["exit 1", "exit 2", "exit 3", "together"]
    assert rows["exit 1"]["leavers"] == [0.7, 0.7] and rows["exit 2"]["leavers"] == []
    assert rows["exit 2"]["macs"] == [120, 120] and rows["together"]["macs"] == [60, 60]
    assert s2dnas_evidence.stage_rows([]) == {}


def test_curves_are_means_over_seeds_and_the_plane_is_empty_without_records():
    other = run(1, 0, 0, outcomes=[outcome(0, 0, 0.54, 23)])
    assert s2dnas_evidence.curve([run(0, 0, 0, outcomes=[CHEAP]), other]) == [(22, pytest.approx(0.53))]
    assert not any(s2dnas_evidence.plane({STATIC: [], FIXED: []}).values())


def test_a_search_is_put_into_words_and_a_tie_is_no_lead():
    rewards = {"policy": [0.5, 0.6], "random": [0.6, 0.4], "alike": [0.7]}
    metrics = {
        "clock": "processor",
        "weights_s": 60.0,
        "candidates_s": 30.0,
        "retraining_s": 30.0,
        "measured": 4,
        "seconds_a_candidate": 0.5,
    }
    best = {name: {"macs": 5, "top1": 0.5} for name in rewards}
    metrics |= {
        "searches": [{"omega": -0.3, "rewards": rewards, "best": best}],
        "retrained": [{}, {}],
        "kendall_tau": -0.2,
    }
    metrics["found"] = {"shares": [0.2, 0.8], "top1": 0.5}
    search = SimpleNamespace(metrics=metrics, environment={"threads": 1}, config={"proxy_held_out_images": 100})
    words = s2dnas_evidence.search_words(search)
    assert (
        "2.0 minutes of processor time on 1 thread" in words
        and "the controller is not ahead" in words
        and "is -0.20" in words
    )
    assert "standard error of 5.0 points" in words
    assert "first quarter of its draws: 0.5000, of the last: 0.6000" in words
    metrics["kendall_tau"] = None
    rewards["policy"].append(0.61)
    words = s2dnas_evidence.search_words(search)
    assert "cannot be ranked" in words and "the two cannot be told apart" in words
    assert "80 % of the held-out images take the last" in words
    assert s2dnas_evidence.omega_plane(search) == {who: {"ω = −0.3": (5, 0.5)} for who in ("controller", "random")}
    drawn, level = s2dnas_evidence.rewards(search)
    assert drawn == {"controller": [0.5, 0.6, 0.61], "random": [0.6, 0.4]} and level[1] == 0.7
    rewards["policy"].append(0.75)
    assert "the controller is ahead. " in s2dnas_evidence.search_words(search)
    assert s2dnas_evidence.rewards(None) == ({}, None)
    assert s2dnas_evidence.search_words(None) == "The search has no record yet."


def test_every_backbone_has_a_static_and_a_thinned_network_and_stages_where_there_are_some():
    found = Config([[0, 1, 4, 8]] * 3)
    for backbone in s2dnas_evidence.BACKBONES:
        names = list(s2dnas_evidence.networks(backbone, found))
        assert names[0] == STATIC and names[1].startswith("thinned") and {FIXED, FOUND} & set(names)
    assert FOUND not in s2dnas_evidence.networks("ResNet-20", None)


def test_a_network_is_drawn_by_the_channels_and_readers_of_its_stages():
    edge, arrows = s2dnas_evidence.drawn(Config([[0, 2, 4, 8]], [[1, 0, 1]]), {"32": 16, "16": 12})
    assert edge == {"32": (0, 4, 8, 16), "16": (0, 3, 6, 12)}
    assert arrows == [[(0, 1), (1, 2)]] * 2
    assert s2dnas_evidence.drawn(None, {"32": 16}) == ({}, [])


# ------------------------------------------------------------------------------------------------------------- counts


def test_static_costs_are_those_of_the_literature_and_the_zoo_and_both_ways_to_count_agree():
    zoo = {None: "–", "resnet20": "40.81", "resnet56": "125.75", "vgg16_bn": "313.73", "mobilenetv2_x1_0": "87.98"}
    lines = {line["network"]: line for line in s2dnas_counts.static_lines(zoo)}
    mega = {name: line["M"] for name, line in lines.items()}
    assert (mega["ResNet-20"], mega["ResNet-56"], mega["ResNet-110"]) == ("40.55", "125.49", "252.89")
    assert (mega["VGG16-BN"], mega["DenseNet-BC-100-12"]) == ("313.20", "287.93")
    for name in ("ResNet-20, projections", "ResNet-56, projections", "MobileNetV2"):
        assert mega[name] == lines[name]["zoo, M"]
    assert all(line["closed form, one stage"] == line["counted"] for line in lines.values())
    assert s2dnas_counts.strides() == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]


def test_the_fixed_cuts_cost_what_the_specification_says():
    first, second = s2dnas_counts.stage_lines()[:2]
    assert [first[f"to exit {k}, M"] for k in (1, 2, 3)] == ["2.62 (6.5 %)", "7.74 (19.1 %)", "28.02 (69.1 %)"]
    assert second["reused"] == "nothing" and second["to exit 1, M"] == first["to exit 1, M"]


def test_the_spaces_have_their_sizes():
    lines = s2dnas_counts.space_lines()
    assert [line["architectures"] for line in lines] == ["2,744", "4,741,632", "133,827,821,568"]
    assert [line["choices a size"] for line in lines] == ["14", "168", "168"]
