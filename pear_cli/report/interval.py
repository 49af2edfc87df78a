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
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return mean, t_quantile(len(values) - 1) * spread


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """t such that a Student variable of `freedom` degrees lies in ±t with probability `confidence`.

    Found by bisection.
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t), a finite sum for whole degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for step in range(1, (freedom + 1) // 2 if odd else freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * step if odd else 2 * step - 1) / (2 * step + 1 if odd else 2 * step)
    area = math.sin(angle) * total
    return 2 / math.pi * (angle + area) if odd else area
