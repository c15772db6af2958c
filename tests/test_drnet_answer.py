"""What records of dynamic resolution are made to say: policies at their cost, parts that add up, words that follow."""

import pytest
from drnet_records import dynamic, plain, record

from dynlib.book.legacy import drnet_answer as answer


@pytest.mark.parametrize(
    ("cost", "best"),
    [(1, None), (10, 0.5), (15, 0.6), (20, 0.7), (30, 0.4 + 0.4 / 3), (99, 0.8), (25, 0.4)],
)
def test_a_mixture_is_of_the_two_points_next_in_cost_whatever_they_score(cost, best):
    points = [(20, 0.7), (10, 0.5), (40, 0.8), (25, 0.4)]  # the last is worse than what lies around it
    assert answer.at_cost(points, cost) == (best if best is None else pytest.approx(best))


def test_every_policy_has_its_own_cost_and_the_dynamic_choice_pays_for_the_predictor():
    found = answer.outcomes(dynamic(), plain())
    assert found["dynamic choice"] == (54, 0.83) == (found["its choices permuted"][0], 0.83)
    assert found["its choices permuted"][1] == pytest.approx(0.81)
    assert found["drawn with noise, as in training"] == (44, pytest.approx(0.79))
    assert found["mixture of fixed sizes, same cost"] == (54, pytest.approx(0.70 + 0.12 * 34 / 40))
    assert found["confidence cascade, same cost"] == (54, pytest.approx(0.75 + 0.08 * 24 / 40))
    assert [found[f"always {side} px"] for side in (128, 96, 64)] == [(100, 0.84), (60, 0.82), (20, 0.70)]
    assert found["oracle, smallest sufficient"] == (30, 0.9) and found["uniform random"] == (60, pytest.approx(0.75))
    assert found["plain network, as many epochs"] == (100, 0.81)
    dear = answer.outcomes(dynamic(cascade_macs=[90.0, 99.0]), None)
    assert not {"confidence cascade, same cost", "plain network, as many epochs"} & dear.keys()


def test_policies_are_compared_seed_by_seed():
    runs = [dynamic(0), dynamic(1, top1=0.85), dynamic(2)]
    table = answer.policies(runs, answer.by_seed([plain(1, 0.80)]))
    assert table["its choices permuted"]["behind"] == pytest.approx([0.02, 0.04, 0.02])
    assert table["dynamic choice"] == {"macs": [54, 54, 54], "top1": [0.83, 0.85, 0.83], "behind": []}
    assert table["plain network, as many epochs"]["behind"] == pytest.approx([0.05])


def test_the_parts_of_the_gain_add_up_to_it():
    runs, baselines = [dynamic(0), dynamic(1, top1=0.86, full=0.80)], answer.by_seed([plain(0), plain(1, 0.79)])
    training, economy, choice, together = answer.parts(runs, baselines).values()
    assert [sum(cut) for cut in zip(training, economy, choice, strict=True)] == pytest.approx(together)
    assert together == pytest.approx([0.02, 0.07]) and choice == pytest.approx([0.02, 0.05])
    assert list(map(len, answer.parts(runs, answer.by_seed([plain(1)])).values())) == [1, 2, 2, 1]
    small = answer.by_seed([plain(1, 0.84, size_px=96, macs=60.0)])
    split, macs = answer.tallies({"a": (runs, baselines, small)})
    assert split["a"][answer.TOGETHER] == together and macs == {"a": {"dynamic": [54, 54]}}
    mixture, cascade, cheaper = answer.ahead({"a": (runs, baselines, small)})["a"].values()
    assert cheaper == pytest.approx([0.02]) and len(mixture) == 2
    assert cascade == pytest.approx([run.metrics["top1"] - (0.75 + 0.08 * 24 / 40) for run in runs])
    assert answer.policies(runs, baselines, small)["the same, trained at 96 px"]["behind"] == pytest.approx([0.02])


def test_training_at_several_sizes_is_paired_by_seed_and_size():
    first = answer.by_seed([record(seed, sides_px=[128, 96, 64], fixed_top1=[0.8, 0.7, 0.6]) for seed in (0, 1)])
    small = answer.by_seed([plain(1, 0.72, size_px=96), plain(2, size_px=96)])
    found = answer.several_sizes(answer.by_seed([plain(0), plain(1, 0.79)]), small, first)
    assert found == {"at full size": pytest.approx([-0.01, 0.01]), "at 96 px": pytest.approx([-0.02])}
    assert answer.several_sizes(answer.by_seed([plain(0)]), small, {}) == {"at full size": [], "at 96 px": []}


def test_what_choosing_is_worth_is_bold_only_beyond_luck_and_chance():
    run = dynamic(0, top1=0.65, blind=0.63)
    assert answer.worth([run]) == "+2.00 points (+2.0 standard deviations of a random deal)"
    assert answer.luck([run, run]) == pytest.approx(4 / 2**0.5) and answer.luck([dynamic(permuted_std=0)]) == 0
    both = "+2.00 ± 0.00 points (+2.8 standard deviations of a random deal): beyond chance"
    assert answer.worth([run, run]) == f"**{both}**"
    assert answer.worth([run, dynamic(1, blind=0.77)]).endswith(
        "(+5.7 standard deviations of a random deal): over seeds not beyond chance"
    )
    assert answer.worth([dynamic(0), dynamic(1, blind=0.83)]).endswith("no more than luck in dealing")
    run.dataset["test_images"] = 1500
    text = answer.answers({"a": ([run, run], {}, {}), "b": ([dynamic(0, right_nowhere=0.81)], {}, {})})
    assert "1,500 test images leave every top-1 a standard error of 1.2 points; policies of one" in text
    assert "- **a**: the choice" in text and "With one seed, which tells no spread: b +2.00 points" in text
    assert "**too weak to bear on the question**: b." in text and "**No choice" not in text
    assert answer.answers({}) == "No record yet."


def test_settings_that_make_no_choice_are_told_once():
    mixed, alone = [dynamic(0, shares=(0, 1, 0), permuted_std=0), dynamic(1)], [dynamic(0, shares=(1, 0, 0))]
    assert answer.collapsed({"a": alone, "b": mixed}).count("(128 px)") == 1 and answer.collapsed({"b": mixed}) == ""
    assert "(+2.0 standard deviations" in answer.worth(mixed[1:])
    said = answer.answers({"a": (alone, {}, {}), "b": (mixed, {}, {})})
    assert "a (128 px)" in said and "one seed" not in said


def test_the_verdict_tells_gain_cost_and_whether_choosing_is_shown_to_help():
    rivals = (answer.by_seed([plain(0), plain(1)]), {})
    several = {"at full size": [0.01, 0.03], "at 96 px": []}
    helped = [dynamic(0), dynamic(1, top1=0.831)]
    text = answer.verdict({"a": (helped, *rivals), "b": ([dynamic(0, shares=(0, 1, 0), top1=0.8)], *rivals)}, several)
    assert text.startswith("Of 2 settings, 1 can show") and "**Choosing is shown to help in a.**" in text
    assert "In 1 of 2 settings nearly every image goes to one size" in text
    assert "scores +2.05 ± 0.07 points with 54 % of its operations (a), the cheapest" in text
    lone = answer.verdict({"b": ([dynamic(0, shares=(0, 1, 0), top1=0.8)], *rivals)}, {})
    assert "(b, one size for all), the cheapest" in lone
    assert (
        "choosing is worth +2.05 points over a random deal" in text
        and "at equal cost all score" in text
        and "worth +2.00 ± 1.41 points at full size (n = 2)." in text
    )
    text = answer.verdict({"a": ([dynamic(0)], *rivals), "five": ([dynamic(0)], {}, {})}, {})
    assert (
        text.startswith("Of 2 settings, 0 can show")
        and "help in none.**" in text
        and "with 54 % of" in text
        and "Training at" not in text
    )
    assert "once there are records" in answer.verdict({}, {}) == answer.verdict({"a": ([dynamic()], {}, {})}, {})


def test_a_figure_has_means_over_seeds_and_nothing_where_there_is_no_run():
    evidence = {"alpha 0.5": [dynamic(0), dynamic(1, top1=0.85)], "alpha 0.9": [dynamic(0, shares=(1, 0, 0))], "x": []}
    found = answer.plane(evidence, answer.by_seed([plain(0), plain(1, 0.83)]))
    assert found["dynamic choice"] == [(54, pytest.approx(0.84)), (104, 0.83)]
    assert found["plain network"] == [(100, pytest.approx(0.82))]
    assert found["confidence cascade"] == [(30, 0.75), (70, 0.83)] and len(found["always one size"]) == 3
    assert not any(answer.plane({"alpha 0.5": []}, {}).values())
    dear = [dynamic(cascade_macs=[30.0, 101.0])]
    assert answer.plane({"alpha 0.5": dear}, {})["confidence cascade"] == [(30, 0.75)]  # full resolution costs 100


def test_every_network_stands_at_the_sizes_it_was_tested_at():
    found = answer.at_fixed_sizes(
        {"joint": [dynamic(0), dynamic(1, full=0.80)], "plain": [record(top1=0.8, size_px=128)]}
    )
    assert found == {
        "joint": {"128 px": [0.84, 0.80], "96 px": [0.82] * 2, "64 px": [0.70] * 2},
        "plain": {"128 px": [0.8]},
    }
