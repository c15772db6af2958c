"""What a mean over few seeds says, and whether it says anything: Student's t."""

from collections.abc import Sequence
from statistics import fmean, stdev

BOUND = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # two-sided 95 %, in standard errors, by the number of values


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of two values or more; of more than five values, by the bound of five."""
    return BOUND[min(len(values), max(BOUND))] * stdev(values) / len(values) ** 0.5


def beyond_chance(values: Sequence[float]) -> bool:
    """Whether the mean is farther from 0 than the 95 % bound; of more than five values that of five; never of one."""
    return len(values) > 1 and abs(fmean(values)) > half_width(values)


def in_points(values: Sequence[float]) -> str:
    """+1.23 ± 0.45: differences of fractions in points, their mean and, of several, the sample deviation."""
    text = f"{100 * fmean(values):+.2f}".replace("-", "−")
    return text + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")
