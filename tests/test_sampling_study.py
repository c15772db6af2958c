"""The evidence of the chapter: no record without a study, and a profile that trains a row of one."""

from dynlib import papers, settings
from dynlib.book import chapters, recipes, report
from dynlib.paths import RESULTS


def test_every_training_record_is_named_by_a_study():
    named = {path.name for path in report.trainings("sampling").path}
    assert {path.name for path in (RESULTS / "sampling").glob("training-*.json")} == named


def test_the_public_profile_trains_a_row_of_the_study():
    values = chapters.profile_values("04_sampling", "public")
    config, recipe = (
        settings.build(kind, settings.part_of(kind, values))
        for kind in (papers.method("sampling").Config, recipes.Recipe)
    )
    (row,) = [row for row in report.rows("sampling", "camvid") if row.name == "stochastic, gamma 1"]
    assert (row.config, row.recipe) == (config, recipe)


def test_the_cost_that_orders_compare_at_is_expected_where_there_are_masks():
    brief = report.trainings("sampling")[lambda frame: frame.study == "brief"]
    assert (brief.cost == brief.macs_expected).all() and (brief.cost < brief.macs).all()
