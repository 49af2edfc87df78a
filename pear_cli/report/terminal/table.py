"""The two tables: all that is there, and what an experiment came to."""

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from pear_cli.config.choices import Metric
from pear_cli.errors import StoreError
from pear_cli.report import spelling
from pear_cli.report.analysis import protocol
from pear_cli.report.analysis.listing import RANDOM, Group, Row, groups, row
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import canonical
from pear_cli.store.store import Store

KEY_DIGITS = 8
MARK = "*"
FASTER = "faster: on 64 images, as measured, of what the multiply-accumulates promise"
SHARING = "sharing saves storage and trained parameters, not multiply-accumulates"


def print_listing(rows: Sequence[Row], console: Console) -> None:
    """Print all rows; evaluations that differ only in their seed share a line."""
    width = layout.width_of(console)
    lines = layout.table(listing_columns(groups(rows)), width)
    layout.write(console, [*lines, *notes(rows, width)])


def print_closing(rows: Sequence[Row], console: Console) -> None:
    """Print what evaluations came to: accuracy beside what the model costs.

    Raises:
        StoreError: a row that is no evaluation.
    """
    for shown in rows:
        if shown.artifact.stage != "eval":
            raise StoreError(
                f"{shown.artifact.path} is a {shown.artifact.stage} artifact; a table needs evaluations"
            )
    width = layout.width_of(console)
    lines = layout.table(closing_columns(groups(rows)), width)
    units = {shown.value("score.unit") for shown in rows}
    shared = {shown.value("share.rule") for shown in rows} - {None, "none"}
    lines += layout.paragraph(SHARING, width, "dim") if shared else []
    lines += layout.paragraph(FASTER, width, "dim") if "channel" in units else []
    layout.write(console, [*lines, *notes(rows, width)])


def closing_rows(artifacts: Sequence[Artifact], store: Store) -> list[Row]:
    """The rows of evaluations, in the order given."""
    return [row(artifact, store) for artifact in artifacts]


def listing_columns(listed: Sequence[Group]) -> list[Column]:
    """The columns of `pear ls`."""
    oracle = any(group.first.value("select") == "test_oracle" for group in listed)
    return [
        Column("stage", [group.first.step for group in listed]),
        Column("key", [group.first.artifact.key[:KEY_DIGITS] for group in listed]),
        _setting("dataset", "dataset", listed),
        Column("method", [marked(group, group.first.value("method")) for group in listed], False, 3, "cut"),
        _setting("prune", "prune.ratio", listed),
        _setting("share", "share.rule", listed, rank=1),
        _setting("knowledge", "knowledge.kind", listed, rank=2),
        *varying(listed, [key for key in VARYING if key not in OPTIONAL]),
        *_telling(listed),
        Column("accuracy %", [_accuracy(group) for group in listed]),
        *_per_class(listed),
        Column("params", [_mean(group, "trainable_params", "count") for group in listed], True, rank=4),
        Column("on disk", [_mean(group, "stored_bytes", "size") for group in listed], True, rank=5),
        Column("time", [_mean(group, "seconds", "duration") for group in listed], True, rank=6),
        _setting("select", "select", listed, rank=0 if oracle else 7),
        Column("created (UTC)", [_created(group) for group in listed], rank=8),
    ]


VARYING = (
    *("backbone.name", "method.rank", "optim.lr", "optim.epochs", "optim.schedule"),
    *("score.criterion", "share.rule", "knowledge.kind"),
)
"""Settings that have a column of their own where rows differ in them."""

MOST = 3
"""Further settings that have a column, at most."""

SAME = ("seed", "method._target_", "dataset._target_", "dataset.name")
"""Settings that other columns have."""

OPTIONAL = ("share.rule", "knowledge.kind")
"""Those that the row's label has, where they are `none`."""


def varying(listed: Sequence[Group], keys: Sequence[str] = VARYING) -> list[Column]:
    """A column for each setting in which the rows that have it differ."""
    columns = []
    for key in keys:
        known = {str(value) for group in listed if (value := group.first.value(key)) is not None}
        if len(known - ({"none"} if key in OPTIONAL else set())) > 1:
            columns.append(_setting(key.split(".")[-1], key, listed, rank=1))
    return columns


def _telling(listed: Sequence[Group]) -> list[Column]:
    """A column for each other setting that alone tells rows apart which look the same."""
    shown = ("dataset", "method", "prune.ratio", "select", *VARYING)
    alike = defaultdict(list)
    for group in listed:
        look = (group.first.step, group.first.lineage.label, *(str(group.first.value(key)) for key in shown))
        alike[look].append(group.first.lineage.settings)
    keys = {
        key
        for settings in alike.values()
        for key in set().union(*settings)
        if key not in SAME and len({canonical(each.get(key)) for each in settings}) > 1
    }
    return [_setting(key.split(".")[-1], key, listed, rank=1) for key in sorted(keys)[:MOST]]


def closing_columns(listed: Sequence[Group]) -> list[Column]:
    """The columns of the closing table."""
    several = len({group.first.value("dataset") for group in listed}) > 1
    methods = len({group.first.value("method") for group in listed}) > 1
    oracle = any(group.first.value("select") == "test_oracle" for group in listed)
    return [
        *([_setting("dataset", "dataset", listed)] if several else []),
        *([_setting("method", "method", listed)] if methods else []),
        Column("model", [marked(group, group.first.lineage.label) for group in listed], words="wrap"),
        Column("pruned", [_pruned(group) for group in listed]),
        *varying(listed),
        Column("accuracy %", [_accuracy(group) for group in listed]),
        *_per_class(listed),
        Column("trained", [_mean(group, "trainable_params", "count") for group in listed], True, rank=2),
        Column("stored", [_mean(group, "stored_params", "count") for group in listed], True, rank=3),
        Column("on disk", [_mean(group, "stored_bytes", "size") for group in listed], True, rank=1),
        *_network(listed),
        *_faster(listed),
        Column("time", [_mean(group, "seconds", "duration") for group in listed], True, rank=4),
        *([_setting("select", "select", listed)] if oracle else []),
    ]


def marked(group: Group, text: str | None) -> str:
    """A text with the mark of random weights, where they are."""
    return spelling.value(text or "") + (MARK if group.first.weights == "random" else "")


def _pruned(group: Group) -> str:
    """How many units went, of how many."""
    chosen = group.first.lineage.last("prune-share")
    if chosen is None:
        return ""
    return f"{chosen.manifest['metrics'].get('pruned')}/{chosen.manifest['metrics'].get('units')}"


def _network(listed: Sequence[Group]) -> list[Column]:
    """The parameters of networks without their pruned channels, of those before."""
    keys = ("network_params", "whole_network_params")
    found = [[group.mean(key) for key in keys] for group in listed]
    cells = ["" if None in values else " of ".join(map(spelling.count, values)) for values in found]
    return [Column("network", cells, True, rank=2)] if any(cells) else []


def _faster(listed: Sequence[Group]) -> list[Column]:
    """How much faster networks without their pruned channels are, on 64 images; measured, and in theory."""
    keys = ("speedup_64", "speedup_theoretical")
    found = [[group.mean(key) for key in keys] for group in listed]
    if all(value is None for values in found for value in values):
        return []
    cells = ["" if None in values else " of ".join(f"{value:.1f}×" for value in values) for values in found]
    return [Column("faster", cells, True)]


def _setting(title: str, key: str, listed: Sequence[Group], rank: int = 0) -> Column:
    found = [group.first.value(key) for group in listed]
    return Column(
        title, ["" if item is None else spelling.value(item) for item in found], rank=rank, words="cut"
    )


def _accuracy(group: Group) -> str:
    return spelling.percent(group.values("accuracy")) if group.first.artifact.stage == "eval" else ""


def _per_class(listed: Sequence[Group]) -> list[Column]:
    """A column of the accuracy that weighs classes equally, where a benchmark reports that one."""
    key = Metric.mean_per_class_accuracy.value
    if all(group.first.value("dataset.metric") != key for group in listed):
        return []
    evaluated = [group.values(key) if group.first.artifact.stage == "eval" else [] for group in listed]
    return [Column("per class %", [spelling.percent(values) if values else "" for values in evaluated])]


def _mean(group: Group, key: str, unit: str) -> str:
    spell = {"count": spelling.count, "size": spelling.size, "duration": spelling.duration}[unit]
    return spell(group.mean(key))


def _created(group: Group) -> str:
    return str(group.first.artifact.manifest["created_at"])[:16].replace("T", " ")


def notes(rows: Sequence[Row], width: int | None) -> list[Text]:
    """What a reader must know who compares these rows, one line each."""
    found = [f"{MARK} {RANDOM}"] if any(row.weights == "random" for row in rows) else []
    said = protocol.notes(shown.lineage for shown in rows)
    found += [f"note: {spelling.printable(note)}" for note in said]
    return [line for note in found for line in layout.paragraph(note, width, layout.NOTE)]
