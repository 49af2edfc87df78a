"""What the store holds, one row an artifact, read from manifests alone."""

import dataclasses
import functools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pear_cli.backbone.identity import weights_name
from pear_cli.config.choices import Phase, Precision, Select
from pear_cli.experiment.experiment import GROUPS
from pear_cli.experiment.lineage import SHORT, Lineage
from pear_cli.experiment.step import ORDER, of_round
from pear_cli.report import spelling
from pear_cli.report.analysis import protocol
from pear_cli.report.analysis.filters import Filter, unknown
from pear_cli.report.analysis.presets import preset_of
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import canonical
from pear_cli.store.store import OnError, Store, ignore

CHOICES: dict[str, type[Enum]] = {
    **{"select": Select, "phase": Phase, "precision": Precision},
    **{
        f"{group}.{field.name}": field.type
        for group, node in GROUPS.items()
        for field in dataclasses.fields(node)
        if isinstance(field.type, type) and issubclass(field.type, Enum)
    },
}
"""Settings that choose from a closed set."""

MARK = "*"
RANDOM = "the weights of the frozen backbone are random: not a transfer result"

VARYING = (
    *("backbone.name", "method.rank", "optim.lr", "optim.epochs", "optim.schedule"),
    *("score.criterion", "share.rule", "knowledge.kind"),
)
"""Settings that tables and names show first where rows differ in them."""


@dataclass(frozen=True)
class Row:
    """One artifact, and the experiment that it belongs to."""

    lineage: Lineage

    @property
    def artifact(self) -> Artifact:
        return self.lineage.artifact

    @property
    def step(self) -> str:
        """Name of the step in its experiment: `adapt` is the second training, `adapt.1` that of a round."""
        return of_round(self.kind, *self.lineage.round)

    @property
    def kind(self) -> str:
        """Name of the step, whatever its round."""
        adapted = self.artifact.stage == "train" and "checkpoint" in self.artifact.inputs
        return "adapt" if adapted else self.artifact.stage

    @functools.cached_property
    def measured(self) -> dict[str, Any]:
        """Metrics and costs by name, and what the manifest says of itself."""
        artifact, manifest = self.artifact, self.artifact.manifest
        own: dict[str, Any] = {"stage": artifact.stage, "key": artifact.key, "label": self.lineage.label}
        own |= {"weights": self.weights, "created": manifest["created_at"], "seconds": self.seconds}
        return {**manifest["accounting"], **manifest["metrics"], **own}

    @property
    def weights(self) -> str | None:
        """The frozen weights: `random`, the name of bundled ones, or the hash of their file."""
        identity = self.lineage.provenance.get("weights")
        return None if identity is None else weights_name(str(identity))

    @property
    def seconds(self) -> float:
        """Of the whole experiment for an evaluation, else of the stage alone."""
        evaluated = self.artifact.stage == "eval"
        return self.lineage.seconds if evaluated else float(self.artifact.manifest["seconds"])

    def named(self, key: str) -> tuple[Any, ...]:
        """All that a filter may call what the row has for `key`, as a table shows it first."""
        if key == "stage":
            return tuple(dict.fromkeys((self.step, self.kind, self.artifact.stage)))
        return self.lineage.named(key) or ((self.measured[key],) if key in self.measured else ())

    def value(self, key: str) -> Any:
        """What a column asks for; None where the row has none."""
        return next(iter(self.named(key)), None)

    def passes(self, condition: Filter) -> bool:
        """Whether the row has what the filter is about, and it is as the filter says."""
        accepted = [condition.accepts(name) for name in self.named(condition.key)]
        return bool(accepted) and (all if condition.operator == "!=" else any)(accepted)

    def settings(self, *apart: str) -> dict[str, Any]:
        """The settings of its experiment by dotted name, but for some."""
        return {key: value for key, value in self.lineage.settings.items() if key not in apart}

    def keys(self) -> set[str]:
        """All that `value` knows of this row."""
        return {*self.lineage.settings, *self.measured}

    def to_json(self) -> dict[str, Any]:
        """All that a comparison needs."""
        artifact, lineage = self.artifact, self.lineage
        stored = ("metrics", "accounting", "environment", "inputs", "seconds", "created_at")
        return {
            "stage": artifact.stage,
            "key": artifact.key,
            "path": str(artifact.path),
            **{name: self.value(name) for name in ("label", "seed", "select", "weights")},
            "config": lineage.config,
            "protocol": protocol.protocol(lineage),
            "provenance": lineage.provenance,
            **{name: artifact.manifest[name] for name in stored},
            "missing_inputs": list(lineage.missing),
            "experiment_seconds": lineage.seconds,
        }


@dataclass(frozen=True)
class Group:
    """Rows that differ only in their seed, newest first; all but evaluations stand alone."""

    rows: tuple[Row, ...]

    def marked(self, text: str | None) -> str:
        """A text with the mark of random weights, where they are."""
        return spelling.value(text or "") + (MARK if self.first.weights == "random" else "")

    @property
    def first(self) -> Row:
        return self.rows[0]

    def values(self, key: str) -> list[float]:
        """The numbers that the rows have for `key`."""
        found = [row.value(key) for row in self.rows]
        return [value for value in found if isinstance(value, int | float)]

    def mean(self, key: str) -> float | None:
        """The mean over the rows; whole numbers that agree stay whole."""
        values = self.values(key)
        if not values:
            return None
        return values[0] if len(set(values)) == 1 else sum(values) / len(values)


def rows(store: Store, filters: Sequence[str] = (), *, on_error: OnError = ignore) -> list[Row]:
    """The rows that pass every filter, by stage, then dataset, method and prune ratio, oldest first.

    Args:
        filters: such as `stage=eval`, `prune.ratio>=0.5`.
        on_error: told of each artifact whose manifest cannot be read; those are left out.

    Raises:
        ConfigError: a filter that is not understood, names a key that no row has, or a value that is none of
            a closed set.
    """
    conditions = [Filter.parse(text) for text in filters]
    artifacts = {(a.stage, a.key): a for a in store.artifacts(on_error=on_error)}

    def find(stage: str, key: str) -> Artifact | None:
        return artifacts.get((stage, key))

    everything = [Row(Lineage.from_artifact(artifact, find)) for artifact in artifacts.values()]
    check(conditions, everything)
    tests = [_test(condition, everything) for condition in conditions]
    chosen = [row for row in everything if all(test(row) for test in tests)]
    return sorted(chosen, key=_order)


def check(conditions: Sequence[Filter], listed: Iterable[Row]) -> None:
    """Raise ConfigError for a filter whose key none of the rows knows."""
    known = {key for row in listed for key in row.keys()} if conditions else set()  # noqa: SIM118
    for condition in conditions:
        condition.check(known)


def row(artifact: Artifact, store: Store) -> Row:
    """The row of one artifact."""
    return Row(Lineage.from_artifact(artifact, store.find))


def notes(listed: Sequence[Row]) -> list[str]:
    """What a reader who compares these rows must know."""
    random = [f"{MARK} {RANDOM}"] if any(row.weights == "random" for row in listed) else []
    return random + [f"note: {said}" for said in protocol.notes(row.lineage for row in listed)]


def json_lines(listed: Iterable[Row]) -> list[str]:
    """One line of JSON a row."""
    return [json.dumps(row.to_json(), allow_nan=False) for row in listed]


def groups(listed: Sequence[Row]) -> list[Group]:
    """Put evaluations together that differ only in their seed; of equal seeds the newest counts.

    Evaluations whose inputs are gone stand alone: what they evaluated is not known for sure.
    """
    together: dict[str, list[Row]] = defaultdict(list)
    seen: Counter[tuple[str, str]] = Counter()
    name_of = {}
    for row in sorted(listed, key=lambda row: row.artifact.created, reverse=True):
        name = row.artifact.key
        if row.artifact.stage == "eval" and not row.lineage.missing:
            name = canonical({"settings": row.settings("seed"), "provenance": row.lineage.provenance})
            repeat = name, str(row.value("seed"))
            seen[repeat] += 1
            name += f" {seen[repeat]}"
        together[name].append(row)
        name_of[row.artifact.key] = name
    return [Group(tuple(together[name])) for name in dict.fromkeys(name_of[r.artifact.key] for r in listed)]


def _test(condition: Filter, listed: Sequence[Row]) -> Callable[[Row], bool]:
    """What decides whether a row passes a condition, which may name a preset."""
    choices = CHOICES.get(SHORT.get(condition.key, condition.key), ())
    known = {_plain(name) for row in listed for name in row.named(condition.key)}
    preset = preset_of(condition, known.union(member.value for member in choices))
    if preset is None:
        _check_choice(condition, listed)
        return lambda row: row.passes(condition)
    wanted = condition.operator == "="
    return lambda row: preset(row.lineage) is wanted


def _check_choice(condition: Filter, listed: Iterable[Row]) -> None:
    """Raise ConfigError for a value that is neither in the closed set of its key nor in any row."""
    key = SHORT.get(condition.key, condition.key)
    choices = ORDER if key == "stage" else [member.value for member in CHOICES.get(key, ())]
    words = [*choices, *(_plain(name) for row in listed for name in row.named(key))]
    if choices and condition.value.casefold() not in map(str.casefold, words):
        raise unknown(key, condition.value, choices, words)


def _order(row: Row) -> tuple[Any, ...]:
    def text(key: str) -> str:
        return _plain(row.value(key))

    def number(key: str) -> float:
        found = row.value(key)
        return float(found) if isinstance(found, int | float) else -1.0

    def kept(key: str) -> tuple[bool, str]:
        return text(key) not in ("null", "none"), text(key)

    step = ORDER.index(row.kind) if row.kind in ORDER else len(ORDER)
    pruned = number("prune.ratio"), kept("share.rule"), kept("knowledge.kind")
    return step, text("dataset"), text("method"), *pruned, row.artifact.created, row.artifact.key


def _plain(value: object) -> str:
    return "null" if value is None else str(value)
