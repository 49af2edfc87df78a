"""A mean over seeds, and how far it can be trusted."""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Args:
        mean: of the numbers.
        half: half the width of the 95% t interval; None for a single seed, which says nothing of the spread.
        count: how many seeds.
    """

    mean: float
    half: float | None
    count: int

    @classmethod
    def from_seeds(cls, values: Sequence[float]) -> "Estimate | None":
        """The estimate from one number a seed; None where there are none.

        half = t(0.975, n - 1) · s / √n        s: standard deviation of the sample
        """
        if not values:
            return None
        count = len(values)
        spread = statistics.stdev(values) / math.sqrt(count) if count > 1 else 0.0
        return cls(statistics.fmean(values), quantile(count - 1) * spread if count > 1 else None, count)

    def percent(self, sign: str = "") -> str:
        """`93.20 ± 0.41`, as a share in percent; one seed has no interval."""
        half = "" if self.half is None else f" ± {100 * self.half:.2f}"
        return f"{100 * self.mean:{sign}.2f}".replace("-", "−") + half


@functools.cache
def quantile(degrees: int) -> float:
    """The 0.975 quantile of Student's t, found by halving; `pear ls` need not load scipy for it.

        t = √n · tan θ        P(|T| < t) = sin θ · Σ_k c_k cos^2k θ                        n even
                                         = 2/π · (θ + sin θ cos θ · Σ_k c_k cos^2k θ)      n odd

    Args:
        degrees: n, degrees of freedom, at least 1.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    odd = degrees % 2
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        angle = (low + high) / 2
        term = total = math.sin(angle) * (math.cos(angle) if odd else 1.0) * (degrees > 1)
        for k in range(2 + odd, degrees, 2):
            term *= math.cos(angle) ** 2 * (k - 1) / k
            total += term
        inside = 2 / math.pi * (angle + total) if odd else total
        low, high = (low, angle) if inside > 0.95 else (angle, high)
    return math.sqrt(degrees) * math.tan(low)
