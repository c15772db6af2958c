"""What few seeds can say."""

import pytest

from dynlib.book.legacy.student import beyond_chance, half_width, in_points


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], False),
        ([5.0], False),
        ([0.10, 0.13], False),  # 7.7 standard errors, of which two values need 12.7
        ([0.10, 0.11], True),  # 21
        ([0.1, 0.12, 0.11], True),
        ([-0.1, -0.12, -0.11], True),
        ([0.1, -0.05, 0.1], False),
        ([1.0, 1.1, 0.9, 1.0, 1.1, 0.9], True),
    ],
)
def test_a_mean_counts_where_it_lies_beyond_the_bound_for_so_few_values(values, found):
    assert beyond_chance(values) is found


def test_the_interval_of_few_values_is_wide():
    assert half_width([0.0, 2.0]) == pytest.approx(12.71) and half_width([0.0, 1.0, 2.0]) == pytest.approx(
        2.48, abs=0.01
    )


def test_differences_are_told_in_points_with_a_sign_and_a_spread_of_several():
    assert in_points([0.0123]) == "+1.23" and in_points([-0.02, -0.03]) == "−2.50 ± 0.71"
