"""The two tables: all that is there, and what an experiment came to."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from rich.console import Console

from pear_cli.config.choices import Metric
from pear_cli.errors import StoreError
from pear_cli.pruning.mask import ranges
from pear_cli.report import spelling
from pear_cli.report.analysis import listing
from pear_cli.report.analysis.listing import VARYING, Group, Row, groups
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.layout import Column, Note
from pear_cli.store.canonical import canonical

FASTER = "faster: on 64 images, as measured, of what the multiply-accumulates promise"
SEVERAL = "+n: the keys of n further seeds; pear ls seed=0 shows the key of one seed"
SHARING = "sharing saves storage and trained parameters, not multiply-accumulates"

MOST = 3
"""Further settings that have a column, at most."""

SAME = ("seed", "method._target_", "dataset._target_", "dataset.name")
"""Settings that other columns have."""

OPTIONAL = ("share.rule", "knowledge.kind")
"""Those that the row's label has, where they are `none`."""


def print_listing(rows: Sequence[Row], console: Console) -> None:
    """Print all rows; evaluations that differ only in their seed share a line."""
    together = groups(rows)
    several = any(len(group.rows) > 1 for group in together)
    below = [(SEVERAL, "dim")] * several
    layout.print_table(listing_columns(together), console, *below, *notes(rows))


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
    shared = {shown.value("share.rule") for shown in rows} - {None, "none"}
    narrowed = any(shown.value("score.unit") == "channel" for shown in rows)
    below = [(SHARING, "dim")] * bool(shared) + [(FASTER, "dim")] * narrowed
    layout.print_table(closing_columns(groups(rows)), console, *below, *notes(rows))


def listing_columns(listed: Sequence[Group]) -> list[Column]:
    """The columns of `pear ls`."""
    return [
        Column("stage", [group.first.step for group in listed]),
        Column("key", [_key(group) for group in listed]),
        _setting("dataset", "dataset", listed),
        Column("method", [group.marked(group.first.value("method")) for group in listed], False, 3, "cut"),
        _setting("prune", "prune.ratio", listed),
        _setting("share", "share.rule", listed, rank=1),
        _setting("knowledge", "knowledge.kind", listed, rank=2),
        *varying(listed, [key for key in VARYING if key not in OPTIONAL]),
        *_telling(listed),
        Column("seed", [_seeds(group) for group in listed], rank=1),
        Column("accuracy %", [_percent(group, "accuracy") for group in listed]),
        *_per_class(listed),
        _mean("params", "trainable_params", spelling.count, listed, 4),
        _mean("on disk", "stored_bytes", spelling.size, listed, 5),
        _mean("time", "seconds", spelling.duration, listed, 6),
        _setting("select", "select", listed, rank=0 if _oracle(listed) else 7),
        Column("created (UTC)", [_created(group) for group in listed], rank=8),
    ]


def closing_columns(listed: Sequence[Group]) -> list[Column]:
    """The columns of the closing table."""
    several = [key for key in ("dataset", "method") if len({g.first.value(key) for g in listed}) > 1]
    return [
        *(_setting(key, key, listed) for key in several),
        Column("model", [group.marked(group.first.lineage.label) for group in listed], words="wrap"),
        Column("pruned", [_pruned(group) for group in listed]),
        *varying(listed),
        Column("accuracy %", [_percent(group, "accuracy") for group in listed]),
        *_per_class(listed),
        _mean("trained", "trainable_params", spelling.count, listed, 2),
        _mean("stored", "stored_params", spelling.count, listed, 3),
        _mean("on disk", "stored_bytes", spelling.size, listed, 1),
        *_of("network", ("network_params", "whole_network_params"), spelling.count, listed, 2),
        *_of("faster", ("speedup_64", "speedup_theoretical"), lambda x: f"{x:.1f}×", listed, 0),
        _mean("time", "seconds", spelling.duration, listed, 4),
        *([_setting("select", "select", listed)] if _oracle(listed) else []),
    ]


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
        alike[look].append(group.first.settings(*SAME))
    keys = {
        key
        for settings in alike.values()
        for key in set().union(*settings)
        if len({canonical(each.get(key)) for each in settings}) > 1
    }
    return [_setting(key.split(".")[-1], key, listed, rank=1) for key in sorted(keys)[:MOST]]


def _key(group: Group) -> str:
    """The key of the newest of its rows, and how many more there are."""
    more = len(group.rows) - 1
    return spelling.key(group.first.artifact.key) + (f" +{more}" if more else "")


def _seeds(group: Group) -> str:
    """The seeds of its rows: `0`, or `0-4,7`."""
    seeds = sorted(seed for seed in group.values("seed") if isinstance(seed, int))
    return ranges(seeds)


def _pruned(group: Group) -> str:
    """How many units went, of how many."""
    chosen = group.first.lineage.last("prune-share")
    if chosen is None:
        return ""
    return f"{chosen.manifest['metrics'].get('pruned')}/{chosen.manifest['metrics'].get('units')}"


def _of(
    title: str, keys: Sequence[str], spell: Callable[[float], str], listed: Sequence[Group], rank: int
) -> list[Column]:
    """A column of networks without their pruned channels: one number of another, where both are known."""
    found = [[group.mean(key) for key in keys] for group in listed]
    cells = [" of ".join(spell(value) for value in pair if value is not None) for pair in found]
    cells = ["" if None in pair else cell for pair, cell in zip(found, cells, strict=True)]
    return [Column(title, cells, True, rank)] if any(cells) else []


def _setting(title: str, key: str, listed: Sequence[Group], rank: int = 0) -> Column:
    found = [group.first.value(key) for group in listed]
    cells = ["" if item is None else spelling.value(item) for item in found]
    return Column(title, cells, rank=rank, words="cut")


def _mean(
    title: str, key: str, spell: Callable[[float | None], str], listed: Sequence[Group], rank: int
) -> Column:
    return Column(title, [spell(group.mean(key)) for group in listed], True, rank)


def _percent(group: Group, key: str) -> str:
    return spelling.percent(group.values(key)) if group.first.artifact.stage == "eval" else ""


def _per_class(listed: Sequence[Group]) -> list[Column]:
    """A column of the accuracy that weighs classes equally, where a benchmark reports that one."""
    key = Metric.mean_per_class_accuracy.value
    if all(group.first.value("dataset.metric") != key for group in listed):
        return []
    return [Column("per class %", [_percent(group, key) for group in listed])]


def _oracle(listed: Sequence[Group]) -> bool:
    return any(group.first.value("select") == "test_oracle" for group in listed)


def _created(group: Group) -> str:
    return str(group.first.artifact.manifest["created_at"])[:16].replace("T", " ")


def notes(rows: Sequence[Row]) -> list[Note]:
    """What a reader who compares these rows must know, a line each."""
    return [(spelling.printable(note), layout.NOTE) for note in listing.notes(rows)]
