"""The mean over seeds, and how far it can be trusted."""

import math
import statistics
from collections.abc import Sequence


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half the width of its 95% interval.

        t(0.975, n - 1) · s / √n        s: standard deviation of the sample

    Args:
        values: one number a seed, at least one.

    Returns:
        The half width is None for a single value, which says nothing of the spread.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    from scipy.special import stdtrit

    spread = statistics.stdev(values) / math.sqrt(len(values))
    return mean, float(stdtrit(len(values) - 1, 0.975)) * spread
