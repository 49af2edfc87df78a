import pytest
from scipy.special import stdtrit

from pear_cli.report.analysis.estimate import Estimate, quantile


def test_the_interval_of_three_seeds():
    found = Estimate.from_seeds([0.90, 0.92, 0.94])
    assert (found.mean, found.count) == (pytest.approx(0.92), 3)
    assert found.half == pytest.approx(4.302652729749462 * 0.02 / 3**0.5)
    assert (found.percent(), found.percent("+")) == ("92.00 ± 4.97", "+92.00 ± 4.97")


def test_one_seed_has_no_interval_and_none_no_estimate():
    assert Estimate.from_seeds([0.5]) == Estimate(0.5, None, 1)
    assert Estimate.from_seeds([]) is None


def test_quantiles_are_those_of_scipy():
    degrees = range(1, 200)
    assert [quantile(n) for n in degrees] == pytest.approx([stdtrit(n, 0.975) for n in degrees], rel=1e-12)
