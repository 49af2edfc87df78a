"""The table of the datasets: what is there of each, else where it comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pear_cli.data.dataset import SPOKEN
from pear_cli.report import spelling
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column

SPLITS = ("train800", "val200", "test")


def print_datasets(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what `inventory.to_json` says of each dataset."""
    columns = [
        Column("dataset", [spelling.printable(row["dataset"]) for row in rows], words="cut"),
        Column("classes", [_number(row["classes"]) for row in rows], right=True),
    ]
    for split in SPLITS:
        counts = [_number((row["splits"] or {}).get(split, {}).get("images")) for row in rows]
        columns.append(Column(SPOKEN[split], counts, right=True, rank=1))
    columns += [
        Column("fingerprint", [_fingerprint(row) for row in rows], rank=2),
        Column("place", [spelling.printable(_place(row)) for row in rows], words="cut"),
    ]
    layout.print_table(columns, console)


def _number(value: int | None) -> str:
    return "" if value is None else spelling.number(value)


def _fingerprint(row: Mapping[str, Any]) -> str:
    """Of all training images, its first digits: enough to see whether two machines have the same."""
    return row["splits"]["train800val200"]["fingerprint"][:8] if row["splits"] else ""


def _place(row: Mapping[str, Any]) -> str:
    if not row["present"]:
        return f"not there; {row['source']}"
    place = row["places"][0] if row["places"] else row["source"]
    return place if row["splits"] else f"{place} (not read yet: pear data prepare)"
