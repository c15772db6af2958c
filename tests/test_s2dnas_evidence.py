"""What the records of stages are made to say, from records with known numbers; and the lines of the counted tables."""

import shlex
from types import SimpleNamespace

import pytest
from stage_records import CHEAP, DEAR, STAGED, outcome, run, thinned

from dynlib import settings
from dynlib.book.legacy import s2dnas_counts, s2dnas_evidence, s2dnas_found
from dynlib.book.legacy.s2dnas_evidence import FIXED, FOUND, STATIC
from dynlib.papers.s2dnas import Config


def test_the_stages_told_are_those_with_most_records_and_what_is_missing_has_its_command():
    runs = {FIXED: STAGED, FOUND: []}
    assert s2dnas_evidence.staged({"A": runs, "B": {FIXED: []}}) == {"A, stages, 0 2 4 8": STAGED}
    assert list(s2dnas_evidence.staged({"A": runs | {FOUND: STAGED}})) == ["A, stages, found"]
    every = {name: STAGED for name in s2dnas_evidence.networks("VGG16-BN", None)} | {STATIC: []}
    (line,) = s2dnas_evidence.unmade("VGG16-BN", every, None, "{} s2dnas {}".format)
    assert line.startswith("No record yet: static. `train s2dnas -p 'cuts=[[0, 8]]' -p arch=cifar_vgg16_bn")


def test_networks_are_compared_on_the_seeds_that_they_share():
    runs = {STATIC: [thinned(seed, 0.8, 100) for seed in (0, 1, 2)], FIXED: STAGED, FOUND: [], "MSDNet": STAGED[:1]}
    shared = s2dnas_evidence.common(runs)
    assert {name: [one.seed for one in of] for name, of in shared.items()} == {
        STATIC: [0, 1],
        FIXED: [0, 1],
        FOUND: [],
        "MSDNet": [0],
    }
    assert not any(s2dnas_evidence.common({STATIC: [], FIXED: []}).values())


def test_a_network_s_command_trains_that_network():
    for backbone in s2dnas_evidence.BACKBONES:
        for config, changes in s2dnas_evidence.networks(backbone, Config([[0, 1, 4, 8]] * 3)).values():
            words = shlex.split(s2dnas_evidence.arguments(config, changes))
            assert words[::2] == ["-p"] * (len(words) // 2)
            values = settings.parse(words[1::2])
            assert settings.build(Config, settings.part_of(Config, values)) == config
            assert {name: values[name] for name in changes} == changes
            assert values.keys() <= {*changes, *settings.names(Config)}


def test_rows_take_losses_from_the_static_network_of_the_same_seed():
    rows = s2dnas_evidence.rows({STATIC: [thinned(0, 0.8, 100)], FIXED: STAGED, "MSDNet": []})
    assert rows[FIXED]["static_top1"] == [0.8, None] and rows[FIXED]["macs"] == [60, 60]
    assert [rows[name]["kind"] for name in rows] == ["static", "dynamic", ""]
    assert [rows[name]["seeds"] for name in rows] == [[0], [0, 1], []]


def test_stages_are_told_one_by_one_and_nobody_leaving_is_no_number():
    rows = s2dnas_evidence.stage_rows(STAGED)
    assert list(rows) == ["exit 1", "exit 2", "exit 3", "together"]
    assert rows["exit 1"]["leavers"] == [0.7, 0.7] and rows["exit 2"]["leavers"] == []
    assert rows["exit 2"]["macs"] == [120, 120] and rows["together"]["macs"] == [60, 60]
    assert s2dnas_evidence.stage_rows([]) == {}


def test_curves_are_means_over_seeds_and_the_plane_is_empty_without_records():
    other = run(1, 0, 0, outcomes=[outcome(0.4, 10, 0.54, 23)])
    first, *_, last = s2dnas_evidence.curve([run(0, 0, 0, outcomes=[CHEAP, DEAR]), other])
    assert first == pytest.approx((22, 0.53, 0.01414), abs=1e-4) and last[0] == (79 + 23) / 2
    plane = s2dnas_evidence.plane({STATIC: [], FIXED: [run(0, 0, 0, outcomes=[CHEAP])]})
    assert set(plane.pop(FIXED)) == {(21, 0.52, 0.0)} and not any(plane.values())
    assert not any(s2dnas_evidence.plane({STATIC: [], FIXED: []}).values())


def search_of(rewards, tau=-0.2, lowest=0.2):
    metrics = {
        "clock": "processor",
        "weights_s": 60.0,
        "candidates_s": 30.0,
        "retraining_s": 30.0,
        "measured": 4,
        "seconds_a_candidate": 0.5,
    }
    best = {name: {"macs": 5, "top1": 0.5, "shares": [0.9, 0.1]} for name in rewards}
    for name, one in best.items():
        one["threshold"] = 0.6 if name == "random" else lowest
    metrics |= {
        "searches": [{"omega": -0.3, "rewards": rewards, "best": best}],
        "retrained": [
            {"by": "policy", "reward": 0.5, "alone": {"reward": 0.48}},
            {"by": "random", "reward": 0.4, "alone": {"reward": 0.49}},
        ]
        * 2,
        "kendall_tau": tau,
        "found": {"shares": [0.96, 0.04], "top1": 0.5, "threshold": 0.3},
    }
    config = {"proxy_held_out_images": 100, "search_stages": 2, "search_groups": 4}
    config |= {"proxy_arch": "cifar_resnet8", "proxy_size_px": 16}
    return SimpleNamespace(metrics=metrics, environment={"threads": 1}, config=config)


def test_a_search_is_put_into_words_and_a_tie_is_no_lead():
    drawn = {"policy": [0.5, 0.6], "untrained": [0.5, 0.5], "random": [0.6, 0.4]}
    told = s2dnas_found.words(search_of(drawn))
    for part in ("2.0 minutes of processor time on 1 thread", "60 s for the shared weights", "error of 0.060"):
        assert part in told
    assert "controller 0.6000, untrained controller 0.5000, even draws 0.6000. **The controller is not ahead:**" in told
    assert "first quarter of its draws 0.5000, of the last 0.6000; of all draws of the untrained one 0.5000" in told
    assert (
        "each is a maximum and biased upward" in told and "Of 1 exponents the controller's best is ahead at 0." in told
    )
    assert "on the proxy, cifar_resnet8 at 16 px" in told and "4 candidates (median 0.50 s)" in told
    assert (
        "96 / 4 % of the proxy's held-out images leave at its exits, at the threshold 0.3. Hardly used: exit 2" in told
    )
    assert "The lowest threshold on offer, 0.2, is that of 2 of the 3 best candidates under shared weights" in told
    assert "there 90 % of the images leave at exit 1, so **it is thin networks" in told
    assert "+0.100 in mean reward under shared weights, where they were picked, by −0.010 trained alone (n = 2" in told
    assert "tau is −0.20 over n = 4 candidates" in told and "75 % of all orders" in told and "says little" in told
    free = s2dnas_found.words(search_of(drawn, lowest=0.3))
    assert "is that of 0 of the 3 best candidates" in free and "it binds none." in free
    near = s2dnas_found.words(search_of(drawn | {"policy": [0.61]}, tau=None))
    assert "cannot be ranked" in near and "These cannot be told apart" in near
    assert "The controller is ahead: " in s2dnas_found.words(search_of(drawn | {"policy": [0.95]}))
    assert s2dnas_found.words(None) == "The search has no record yet."


def test_an_exit_that_a_run_hardly_uses_is_named_with_all_runs():
    told = s2dnas_found.hardly_used([[0.5, 0.4, 0.1], [0.6, 0.4, 0.0]])
    assert told == "Hardly used: exit 3, where 10.0, 0.0 % leave."
    assert s2dnas_found.hardly_used([[0.5, 0.5]]) == "Every exit is used by 5 % or more."


def test_a_search_is_drawn_by_who_drew_and_a_ranked_space_has_a_level_and_places():
    drawn = {"policy": [0.5, 0.6], "untrained": [0.5, 0.5], "random": [0.6, 0.4]}
    names = {"controller": [0.5, 0.6], "untrained controller": [0.5, 0.5], "even draws": [0.6, 0.4]}
    assert s2dnas_found.rewards(search_of(drawn)) == (names, None)
    assert s2dnas_found.rewards(None) == ({}, None)
    assert s2dnas_found.omega_plane(search_of(drawn)) == {name: {"ω = −0.3": (5, 0.5)} for name in names}
    twice = search_of(drawn)
    twice.metrics["searches"].append(twice.metrics["searches"][0] | {"omega": 0})
    assert s2dnas_found.omega_plane(twice) == {name: {"ω = −0.3, 0": (5, 0.5)} for name in names}
    assert not any(s2dnas_found.omega_plane(None).values())
    assert [one["by"] for one in s2dnas_found.retrained(search_of(drawn))] == ["controller", "even draws"] * 2
    assert s2dnas_found.retrained(None) == []
    ranked = search_of(drawn | {"every": [0.7, 0.65, 0.6, 0.5, 0.4]})
    assert s2dnas_found.rewards(ranked)[1] == ("best of all", 0.7)
    told = s2dnas_found.small_words(ranked, "make x")
    assert "all 5 networks of 2 stages in 4 groups" in told and "2 different even draws reach number 2.0" in told
    assert "controller number 3, untrained controller number 4, even draws number 3" in told
    assert s2dnas_found.small_words(None, "make x").endswith("no record yet; `make x` makes it.")


def test_every_backbone_has_a_static_and_a_thinned_network_and_stages_where_there_are_some():
    found = Config([[0, 1, 4, 8]] * 3)
    for backbone in s2dnas_evidence.BACKBONES:
        names = list(s2dnas_evidence.networks(backbone, found))
        assert names[0] == STATIC and names[1].startswith("thinned") and {FIXED, FOUND} & set(names)
    assert FOUND not in s2dnas_evidence.networks("ResNet-20", None)


def test_a_network_is_drawn_by_the_channels_and_readers_of_its_stages():
    edge, arrows = s2dnas_found.drawn(Config([[0, 2, 4, 8]], [[1, 0, 1]]), {"32": 16, "16": 12})
    assert edge == {"32": (0, 4, 8, 16), "16": (0, 3, 6, 12)}
    assert arrows == [[(0, 1), (1, 2)]] * 2
    assert s2dnas_found.drawn(None, {"32": 16}) == ({}, [])


# ------------------------------------------------------------------------------------------------------------- counts


def test_static_costs_are_those_of_the_literature_and_the_zoo_and_both_ways_to_count_agree():
    zoo = {None: "–", "resnet20": "40.81", "resnet56": "125.75", "vgg16_bn": "313.73", "mobilenetv2_x1_0": "87.98"}
    lines = {line["network"]: line for line in s2dnas_counts.static_lines(zoo, {row: f"of {row}" for row in zoo})}
    mega = {name: line["M"] for name, line in lines.items()}
    assert (mega["ResNet-20"], mega["ResNet-56"], mega["ResNet-110"]) == ("40.55", "125.49", "252.89")
    assert (mega["VGG16-BN"], mega["DenseNet-BC-100-12"]) == ("313.20", "287.93")
    for name in ("ResNet-20, projections", "ResNet-56, projections", "MobileNetV2"):
        assert mega[name] == lines[name]["zoo, M"]
    assert lines["ResNet-56, projections"]["zoo top-1, %"] == "of resnet56"
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
