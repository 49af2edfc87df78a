import math

import pytest

from pear_cli.report.interval import mean_and_interval, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100])
def test_the_t_quantile_is_that_of_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_the_t_quantile_of_one_and_two_degrees_has_a_closed_form():
    assert t_quantile(1) == pytest.approx(math.tan(math.pi * 0.475))
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)))


def test_the_interval_of_three_seeds():
    mean, half = mean_and_interval([0.90, 0.92, 0.94])
    assert mean == pytest.approx(0.92)
    assert half == pytest.approx(4.302652729749462 * 0.02 / math.sqrt(3))


def test_one_seed_has_no_interval():
    assert mean_and_interval([0.5]) == (0.5, None)
