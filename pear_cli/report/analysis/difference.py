"""What differs between two artifacts: settings, protocol, environment, results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pear_cli.experiment.lineage import Lineage
from pear_cli.report import spelling
from pear_cli.report.analysis.listing import Row
from pear_cli.report.analysis.predictions import Predictions
from pear_cli.report.analysis.protocol import differences, in_words, protocol
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

Pairs = Mapping[str, tuple[Any, Any]]
"""What the one and what the other has; None where it has nothing."""

OF_ITSELF = ("key", "created", "stage", "notes")


@dataclass(frozen=True)
class Agreement:
    """How two models do on the same images.

    Args:
        both, first, second, neither: images that both, only the one or none of them label rightly.
        p: of McNemar's exact test, that being right alone is as likely for either.

    Source: McNemar 1947; exact binomial form.
    """

    both: int
    first: int
    second: int
    neither: int
    p: float


@dataclass(frozen=True)
class Difference:
    """What differs between two artifacts.

    Args:
        names: `<stage>/<key>` of each.
        settings, measured, environment: what is not equal, by name.
        apart: in words, what of the protocol keeps them from being compared.
        agreement: of two evaluations on the same images.
    """

    names: tuple[str, str]
    settings: Pairs
    measured: Pairs
    environment: Pairs
    apart: str
    agreement: Agreement | None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return {
            "artifacts": list(self.names),
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "measured": {name: list(pair) for name, pair in self.measured.items()},
            "environment": {name: list(pair) for name, pair in self.environment.items()},
            "not_comparable": self.apart or None,
            "agreement": self.agreement and vars(self.agreement),
        }


def between(first: Artifact, second: Artifact, store: Store) -> Difference:
    """Compare two artifacts with all that they were made from.

    Raises:
        CorruptArtifact: damaged predictions.
    """
    rows = [Row(Lineage.of(artifact, store.find)) for artifact in (first, second)]
    lineages = [row.lineage for row in rows]
    measured = [_measured(row) for row in rows]
    environments = [_plain(row.artifact.manifest["environment"]) | row.lineage.provenance for row in rows]
    return Difference(
        (f"{rows[0].step}/{first.key}", f"{rows[1].step}/{second.key}"),
        _unequal(*(lineage.settings for lineage in lineages)),
        _unequal(*measured),
        _unequal(*environments),
        in_words(differences(protocol(lineage) for lineage in lineages)),
        _agreement(*lineages),
    )


def print_difference(found: Difference, console: Console) -> None:
    """Print what differs, a line each."""
    width = layout.width_of(console)
    titles = [f"{name.partition('/')[0]}/{name.partition('/')[2][:8]}" for name in found.names]
    lines: list[Text] = []
    for title, pairs in (
        ("settings", found.settings), ("measured", found.measured), ("environment", found.environment)
    ):  # fmt: skip
        if not pairs:
            lines.append(Text(f"{title}: the same", style="dim"))
            continue
        spell = _measure if title == "measured" else _spell
        columns = [
            Column(title, [spelling.printable(name) for name in pairs], words="cut"),
            *(Column(titles[i], [spell(pair[i]) for pair in pairs.values()], words="cut") for i in (0, 1)),
        ]
        if title == "measured":
            columns.append(Column("difference", [_change(*pair) for pair in pairs.values()], right=True))
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


def _measured(row: Row) -> dict[str, Any]:
    """What was measured, the metrics before the costs."""
    ordered = {**row.artifact.manifest["metrics"], **row.measured}
    return {name: value for name, value in ordered.items() if name not in OF_ITSELF}


def _unequal(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    names = dict.fromkeys((*first, *second))
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _agreement(first: Lineage, second: Lineage) -> Agreement | None:
    """None unless both were evaluated on the same images."""
    data = [_plain_data(lineage) for lineage in (first, second)]
    if data[0] is None or data[0] != data[1]:
        return None
    read = [Predictions.of(lineage.artifact) for lineage in (first, second)]
    if read[0] is None or read[1] is None or len(read[0].labels) != len(read[1].labels):
        return None
    from scipy.stats import binomtest

    mine, theirs = read[0].right, read[1].right
    alone = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    p = float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0
    return Agreement(int((mine & theirs).sum()), *alone, int((~mine & ~theirs).sum()), p)


def _plain_data(lineage: Lineage) -> object:
    if lineage.artifact.stage != "eval":
        return None
    return lineage.artifact.manifest["environment"].get("data")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Mapping)}


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
