"""The table of an audit: a line a check, and in words what it found."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pear_cli.report import spelling
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column


def print_checks(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the rows of an audit, as its JSON has them; words are wrapped to the width of the terminal."""
    columns = [
        Column("check", [row["check"] for row in rows]),
        Column("result", [row["result"] for row in rows]),
        Column("value", [_value(row["value"]) for row in rows], right=True),
        Column("meaning", [spelling.printable(row["meaning"]) for row in rows], words="wrap"),
    ]
    table = layout.table(columns, layout.width_of(console))
    for line in table:
        line.highlight_words(["FAIL"], layout.FAILED)
    layout.write(console, table)


def _value(value: float | int | str | None) -> str:
    """A measured error to two digits, a count in full."""
    if isinstance(value, float):
        return f"{value:.1e}" if value else "0"
    return spelling.printable(value) if isinstance(value, str) else spelling.number(value)
