"""What differs between two artifacts, as tables."""

from rich.console import Console
from rich.text import Text

from pear_cli.report import spelling
from pear_cli.report.analysis.difference import Difference
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column

RESULTS = ("accuracy", "mean_per_class_accuracy", "loss")
"""Ends of the names of results, which depend on the images."""


def print_difference(found: Difference, console: Console) -> None:
    """Print what differs, a line each."""
    width = layout.width_of(console)
    titles = [f"{step}/{spelling.key(key)}" for step, _, key in (name.partition("/") for name in found.names)]
    lines: list[Text] = []
    parts = {"settings": found.settings, "measured": found.measured, "environment": found.environment}
    for title, pairs in parts.items():
        if not pairs:
            lines.append(Text(f"{title}: the same", style="dim"))
            continue
        spell = _measure if title == "measured" else _spell
        columns = [
            Column(title, [spelling.printable(name) for name in pairs], words="cut"),
            *(Column(titles[i], [spell(pair[i]) for pair in pairs.values()], words="cut") for i in (0, 1)),
        ]
        if title == "measured":
            no_change = RESULTS if found.of_other_images else ()
            changes = ["" if name.endswith(no_change) else _change(*pair) for name, pair in pairs.items()]
            columns.append(Column("difference", changes, right=True))
        lines += [*layout.table(columns, width), Text()]
    if found.agreement is not None:
        images = found.agreement
        lines += layout.paragraph(
            f"of the same images {images.both} are right in both, {images.first} only in the first, "
            f"{images.second} only in the second, {images.neither} in none; McNemar's exact p = "
            f"{images.p:.3g}",
            width,
        )
    if found.apart:
        lines += layout.paragraph(f"note: not comparable, they differ in {found.apart}", width, layout.NOTE)
    layout.write(console, lines)


def _spell(value: object) -> str:
    if isinstance(value, float):
        return spelling.number(value)
    text = "" if value is None else spelling.value(value)
    return text if len(text) <= 24 else f"{text[:20]}…"


def _measure(value: object) -> str:
    """As `_spell`, but a count in groups of three digits."""
    return spelling.number(value) if type(value) is int else _spell(value)


def _change(first: object, second: object) -> str:
    if not isinstance(first, int | float) or not isinstance(second, int | float):
        return ""
    change = second - first
    return ("+" if change > 0 else "") + spelling.number(change)
