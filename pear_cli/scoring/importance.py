"""What scoring finds: the importance of every unit, how stable it is, and which adapters are alike."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from pear_cli.config.choices import Unit
from pear_cli.errors import CorruptArtifact
from pear_cli.store.decoding import decoding, number, text, whole

Group = tuple[str, int, int]


@dataclass(frozen=True)
class ScoredUnit:
    """One unit.

    Args:
        name: of an adapter, its home site; of an attention head, `<attention>.heads.<index>`; of a rank-1
            component, `<site>.ranks.<index>`; of a channel, `<module>.channels.<index>`, and of a whole head
            that goes with channels, `<attention>.qkv.channels.<index>`.
        block: index of the block, counted from the input.
        slot: the kind of site; `attn` for heads.
        group: the units that can stand in for each other; of adapters, the compatibility group
            `Site.group`, within which they may share. No group loses all its units.
        parameters: how many parameters are the unit's own.
    """

    name: str
    block: int
    slot: str
    group: Group
    parameters: int

    @property
    def is_head(self) -> bool:
        """Whether what is scored with channels is a whole attention head."""
        return self.slot == "attn.qkv" and ".channels." in self.name

    @property
    def called(self) -> str:
        """The name for a reader, to whom a head is no channel."""
        return self.name.replace(".channels.", ".heads.") if self.is_head else self.name


@dataclass(frozen=True)
class Importance:
    """The importance of every unit.

    Args:
        criterion: name of the criterion.
        units: by block, then slot, then index; ties between equal scores break in this order.
        scores: one finite number a unit; more is more important.
        images: calibration images that were used.
        kendall_tau: rank correlation, in [-1, 1], of the scores over the even and over the odd batches;
            None where the criterion reads no data, there are fewer than two batches, or all scores tie.
        similarity: `similarity[s][k]` in [0, 1] is the linear CKA of the outputs of the adapters of s and k,
            both at the input of site s, for every ordered pair within a group.

    Raises:
        CorruptArtifact: scores that are not finite or not one a unit, a unit twice, a similarity between
            units that are unknown or of two groups, a number out of its range.
    """

    criterion: str
    units: tuple[ScoredUnit, ...]
    scores: tuple[float, ...]
    images: int
    kendall_tau: float | None
    similarity: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        _require(
            len(self.units) == len(self.scores), f"{len(self.scores)} scores for {len(self.units)} units"
        )
        groups = {unit.name: unit.group for unit in self.units}
        _require(len(groups) == len(self.units), "a unit stands in it twice")
        for unit, score in zip(self.units, self.scores, strict=True):
            if not math.isfinite(score):  # there may be 500 000 units: no message is made in vain
                raise _nonsense(f"the score of {unit.name} is {score}")
            if unit.parameters < 0 or unit.block < 0:
                raise _nonsense(f"{unit.name} has a negative size or block")
        _require(self.images >= 0, f"{self.images} images")
        tau = self.kendall_tau
        _require(tau is None or -1 <= tau <= 1, f"kendall_tau is {tau}")
        for site, row in self.similarity.items():
            for other, value in row.items():
                known = site in groups and other in groups
                _require(known and groups[site] == groups[other], f"a similarity between {site} and {other}")
                _require(0 <= value <= 1, f"the similarity of {site} and {other} is {value}")

    @property
    def unit(self) -> Unit:
        """The kind of unit that was scored, by its name."""
        kind = self.units[0].name.rpartition(".")[0].rpartition(".")[2]
        return next((unit for unit in Unit if kind == f"{unit.value}s"), Unit.adapter)

    def by_name(self) -> dict[str, float]:
        """The score of every unit by its name, in site order."""
        return {unit.name: score for unit, score in zip(self.units, self.scores, strict=True)}

    def ascending(self) -> list[ScoredUnit]:
        """The units, least important first; equal scores in site order."""
        ranked = sorted(zip(self.scores, self.units, strict=True), key=itemgetter(0))  # sorted() is stable
        return [unit for _, unit in ranked]

    def descending(self) -> list[ScoredUnit]:
        """The units, most important first; equal scores in site order."""
        ranked = sorted(zip(self.scores, self.units, strict=True), key=lambda pair: -pair[0])
        return [unit for _, unit in ranked]

    def among(self, scored: "Importance") -> "Importance":
        """These scores among all units of an earlier scoring; those that are gone stand below all others."""
        known, lowest = self.by_name(), min(self.scores) - 1.0
        scores = tuple(known.get(unit.name, lowest) for unit in scored.units)
        return replace(self, units=scored.units, scores=scores)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; `from_json` reads them back.

        Units `<place>.0`, `<place>.1`, … that differ in nothing else are one entry with a list of scores.
        """
        return {
            "criterion": self.criterion,
            "images": self.images,
            "kendall_tau": self.kendall_tau,
            "units": _entries(self),
            "similarity": {site: dict(row) for site, row in self.similarity.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> "Importance":
        """Read what `to_json` wrote.

        Raises:
            CorruptArtifact: anything else.
        """
        with decoding("an importance"):
            tau = value["kendall_tau"]
            scored = [pair for entry in value["units"] for pair in _scored(entry)]
            return cls(
                criterion=text(value["criterion"]),
                units=tuple(unit for unit, _ in scored),
                scores=tuple(score for _, score in scored),
                images=whole(value["images"]),
                kendall_tau=None if tau is None else number(tau),
                similarity={
                    text(site): {text(other): number(cka) for other, cka in row.items()}
                    for site, row in value["similarity"].items()
                },
            )


def _entries(importance: Importance) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    last: object = None
    for unit, score in zip(importance.units, importance.scores, strict=True):
        place, _, index = unit.name.rpartition(".")
        this = (place, unit.block, unit.slot, unit.group, unit.parameters)
        if this == last and index == str(len(found[-1]["scores"])):
            found[-1]["scores"].append(score)
            continue
        first = index == "0"
        about = {**vars(unit), "group": list(unit.group)}
        found.append({**about, **({"name": place, "scores": [score]} if first else {"score": score})})
        last = this if first else None
    return found


def _scored(entry: Mapping[str, Any]) -> Iterator[tuple[ScoredUnit, float]]:
    slot, width_in, width_out = entry["group"]
    group = (text(slot), whole(width_in), whole(width_out))
    name, about = text(entry["name"]), (whole(entry["block"]), text(entry["slot"]), group)
    size = whole(entry["parameters"])
    if "scores" not in entry:
        yield ScoredUnit(name, *about, size), number(entry["score"])
        return
    for index, score in enumerate(entry["scores"]):
        yield ScoredUnit(f"{name}.{index}", *about, size), number(score)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise _nonsense(what)


def _nonsense(what: str) -> CorruptArtifact:
    return CorruptArtifact(f"not an importance: {what}")
