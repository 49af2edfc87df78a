"""How numbers and names are spelled for a reader."""

from collections.abc import Sequence
from decimal import Decimal

from pear_cli.errors import printable as printable
from pear_cli.report.analysis.estimate import Estimate
from pear_cli.system import progress
from pear_cli.system.progress.rows import duration as duration


def value(setting: object) -> str:
    """A setting as the command line takes it."""
    if setting is None:
        return "null"
    if isinstance(setting, bool):
        return str(setting).lower()
    if isinstance(setting, list | tuple):
        return f"[{','.join(value(item) for item in setting)}]"
    return printable(str(setting))


def key(digits: str) -> str:
    """A key by its first digits, which are enough to name it to a command."""
    return digits[:8]


def number(x: float | None) -> str:
    """A measured number with four digits; whole numbers in full."""
    if x is None:
        return ""
    if isinstance(x, int):
        return f"{x:,}".replace(",", " ")
    decimal = Decimal(f"{x:.12g}")  # two sums of the same numbers round alike
    return f"{float(f'{decimal:.4g}'):.4g}"


def count(n: float | None) -> str:
    """A number of parameters: 812, 26.1k, 85.8M."""
    if n is None:
        return ""
    power, units = 0, ("", "k", "M", "G")
    while abs(n) >= 1000 and power < len(units) - 1:
        n, power = n / 1000, power + 1
    return (f"{n:.0f}" if power == 0 or abs(n) >= 100 else f"{n:.1f}") + units[power]


def size(n: float | None) -> str:
    """A size on disk: 812 B, 104 KiB, 3.3 MiB."""
    return "" if n is None else progress.size(n)


def percent(values: Sequence[float]) -> str:
    """A share in percent; of several runs the mean, its 95% interval and the number of runs."""
    found = Estimate.from_seeds(values)
    if found is None:
        return ""
    return found.percent() + (f" (n={found.count})" if found.count > 1 else "")
