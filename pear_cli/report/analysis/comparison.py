"""Evaluations beside each other: means over seeds, and differences that are paired by seed."""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pear_cli.errors import ConfigError
from pear_cli.experiment.lineage import UNKNOWN
from pear_cli.report import spelling
from pear_cli.report.analysis.estimate import Estimate
from pear_cli.report.analysis.filters import Filter
from pear_cli.report.analysis.listing import VARYING, Group, Row, check, groups
from pear_cli.report.analysis.protocol import Protocol, differences, in_words, of_other_images, protocol
from pear_cli.store.canonical import canonical

PRUNING = ("prune.", "share.", "knowledge.", "score.", "phase", "optim.adapt_epochs", "optim.optimizer_state")
"""Settings in which a pruned model differs from its own baseline."""

NAMED = 4  # settings that a name tells apart by, at most
TELLING = (*VARYING, "weights", "score.unit", "prune.scope")
"""Settings that a name tells apart by before all others."""


@dataclass(frozen=True)
class Line:
    """One experiment in a comparison: its evaluations over all seeds.

    Args:
        group: the evaluations, newest first.
        model: what was done to the dense model, and the settings that tell it from others of that label.
        baseline: what it is compared with, None where there is nothing.
        number: its place in the comparison, counted from 0.
    """

    group: Group
    model: str
    baseline: Group | None
    number: int

    @property
    def first(self) -> Row:
        return self.group.first

    @property
    def dataset(self) -> str:
        return spelling.value(self.first.value("dataset"))

    @property
    def method(self) -> str:
        return spelling.value(self.first.value("method"))

    @property
    def ratio(self) -> float | None:
        """The share of the units that was to be pruned."""
        found = self.first.value("prune.ratio")
        return found if isinstance(found, int | float) else None

    @property
    def series(self) -> str:
        """The name without the prune ratio: what a curve over ratios has in common."""
        return self.model.replace(_pruned(self.ratio), "") if self.ratio else self.model

    @property
    def name(self) -> str:
        """Method and model."""
        return self._of_method(self.model)

    @property
    def series_name(self) -> str:
        """Method and series."""
        return self._of_method(self.series)

    def _of_method(self, text: str) -> str:
        return text if text.split(", ")[0] == self.method else f"{self.method} · {text}"

    @functools.cached_property
    def by_seed(self) -> dict[str, float]:
        """The accuracy of each seed."""
        return _by_seed(self.group)

    @property
    def accuracy(self) -> Estimate | None:
        return Estimate.from_seeds(list(self.by_seed.values()))

    @property
    def difference(self) -> Estimate | None:
        """Accuracy less that of the baseline, over the seeds that both have; None on other images."""
        if self.baseline is None or self.is_baseline or self.of_other_images:
            return None
        theirs = _by_seed(self.baseline)
        return Estimate.from_seeds(
            [own - theirs[seed] for seed, own in self.by_seed.items() if seed in theirs]
        )

    @property
    def is_baseline(self) -> bool:
        return self.baseline is self.group

    @functools.cached_property
    def of_other_images(self) -> bool:
        """Whether the baseline has seen other images."""
        return self.baseline is not None and of_other_images(
            [protocol(self.baseline.first.lineage), self.protocol]
        )

    @property
    def images(self) -> int | None:
        """How many images its test set has."""
        found = self.first.value("images")
        return found if isinstance(found, int) and found > 0 else None

    @property
    def noise(self) -> float:
        """Two binomial standard errors of the accuracy of one seed: what a test set of this size leaves open.

        2 · √(p(1 - p) / n)        p: accuracy, n: images; 0 where these are not known
        """
        if self.accuracy is None or self.images is None:
            return 0.0
        p = self.accuracy.mean
        return 2 * math.sqrt(p * (1 - p) / self.images)

    @functools.cached_property
    def protocol(self) -> Protocol:
        return protocol(self.first.lineage)

    @property
    def incomparable(self) -> str:
        """In words, the protocol in which it differs from its baseline; empty where it does not."""
        if self.baseline is None:
            return ""
        return in_words(differences([protocol(self.baseline.first.lineage), self.protocol]))


def compare(rows: Iterable[Row], baseline: Sequence[str] = ()) -> list[Line]:
    """Compare evaluations; rows of other stages are left out.

    Args:
        rows: in the order wanted.
        baseline: filters of the rows to compare with, of each dataset the one with the most settings in
            common; by default the dense model of the same dataset and method.

    Raises:
        ConfigError: no evaluation passes the filters of the baseline.
    """
    listed = groups([row for row in rows if row.artifact.stage == "eval"])
    settings = [_settings(group) for group in listed]
    conditions = [Filter.parse(text) for text in baseline]
    check(conditions, [group.first for group in listed])
    candidates = defaultdict(list)
    for index, group in enumerate(listed):
        if group.first.lineage.label == UNKNOWN:
            continue
        dense = group.first.lineage.label.startswith("dense")
        if all(map(group.first.passes, conditions)) if conditions else dense:
            candidates[_scope(group, bool(conditions))].append(index)
    if conditions and listed and not candidates:
        raise ConfigError(f"baseline: no evaluation here matches {' '.join(baseline)}")

    def nearest(index: int) -> Group | None:
        def distance(other: int) -> tuple[int, bool, int]:
            apart = sum(not name.startswith(PRUNING) for name, _ in settings[index] ^ settings[other])
            return apart, listed[other].first.lineage.label != "dense", other

        if listed[index].first.lineage.label == UNKNOWN:
            return None
        there = candidates[_scope(listed[index], bool(conditions))]
        return listed[min(there, key=distance)] if there else None

    names = _names(listed, settings)
    return [
        Line(group, name, nearest(index), index)
        for index, (group, name) in enumerate(zip(listed, names, strict=True))
    ]


def of_another_protocol(lines: Sequence[Line]) -> set[int]:
    """Numbers of the lines whose protocol differs from the one that most of these have."""
    kinds = Counter(tuple(sorted(line.protocol.items())) for line in lines)
    usual = dict(kinds.most_common(1)[0][0]) if kinds else {}
    return {line.number for line in lines if differences([usual, line.protocol])}


def _scope(group: Group, chosen: bool) -> Hashable:
    dataset = spelling.value(group.first.value("dataset"))
    return dataset if chosen else (dataset, spelling.value(group.first.value("method")))


def _settings(group: Group) -> frozenset[tuple[str, str]]:
    found = {key: canonical(item) for key, item in group.first.settings("seed").items()}
    if "weights" in group.first.lineage.provenance:
        found["weights"] = str(group.first.lineage.provenance["weights"])
    return frozenset(found.items())


def _names(listed: Sequence[Group], settings: Sequence[frozenset[tuple[str, str]]]) -> list[str]:
    """What each model is called: its label, what tells it from its namesakes, and the prune ratio."""
    labels = [spelling.printable(group.first.lineage.label) for group in listed]
    settings = [frozenset(one for one in own if one[0] != "prune.ratio") for own in settings]
    together: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(listed):
        together[_scope(group, False), labels[index]].append(index)
    names = [""] * len(listed)
    for same in together.values():
        telling, taken = _telling([settings[index] for index in same]), set()
        for index in same:
            own = dict(settings[index])
            told = [f"{key.rpartition('.')[2]} {_short(own[key])}" for key in telling if key in own]
            name = ", ".join([labels[index], *told]) + _pruned(listed[index].first.value("prune.ratio"))
            if name in taken:
                name += f", {listed[index].first.artifact.key[:8]}"
            taken.add(name)
            names[index] = name
    return names


def _pruned(ratio: object) -> str:
    return f", {100 * ratio:.4g}%" if isinstance(ratio, int | float) and ratio else ""


def _telling(settings: Sequence[frozenset[tuple[str, str]]]) -> list[str]:
    """The settings that tell these apart: each separates some that those before it do not."""

    def rank(name: str) -> tuple[int, str]:
        return TELLING.index(name) if name in TELLING else len(TELLING), name

    differing = {name for name, _ in frozenset.union(*settings) - frozenset.intersection(*settings)}
    each = [dict(own) for own in settings]
    chosen: list[str] = []
    apart = 1
    for name in sorted(differing, key=rank):
        if apart == len(set(settings)) or len(chosen) == NAMED:
            break
        parts = {tuple(own.get(key) for key in (*chosen, name)) for own in each}
        if len(parts) > apart:
            chosen, apart = [*chosen, name], len(parts)
    return chosen


def _short(said: str) -> str:
    text = spelling.printable(said.strip('"'))
    return text if len(text) <= 24 else f"{text[:8]}…"


def _by_seed(group: Group) -> dict[str, float]:
    found: dict[str, Any] = {spelling.value(row.value("seed")): row.value("accuracy") for row in group.rows}
    return {
        seed: accuracy
        for seed, accuracy in found.items()
        if isinstance(accuracy, int | float) and 0 <= accuracy <= 1
    }
