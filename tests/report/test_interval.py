import math

import pytest

from pear_cli.report.interval import mean_and_interval


def test_the_interval_of_three_seeds():
    mean, half = mean_and_interval([0.90, 0.92, 0.94])
    assert mean == pytest.approx(0.92)
    assert half == pytest.approx(4.302652729749462 * 0.02 / math.sqrt(3))


def test_one_seed_has_no_interval():
    assert mean_and_interval([0.5]) == (0.5, None)
