"""What of a model was pruned, and who serves in its place: as its files tell, without the model."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pear_cli.config.choices import Unit
from pear_cli.errors import StoreError
from pear_cli.experiment.lineage import Lineage
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance

SITE = re.compile(r"(?P<path>.*)\.(?P<slot>attn\.\w+|mlp(?:\.\w+)?|\w+\.\d+)")
PART = re.compile(r"\.(?:heads|ranks|channels|blocks)\.\d+$")
COUNTED = re.compile(r"\.(?:channels|blocks)\.\d+$")
HEADS = ".qkv.channels"
"""At the end of what the heads of an attention are called that go with channels."""

Owners = Mapping[str, str | None]


@dataclass(frozen=True)
class Sites:
    """The adapters of a model.

    Args:
        names: of all sites.
        scores: importance of the adapter at each site; empty where it is not known.
        owners: home site of the adapter that serves at each site, None where none does; empty before pruning.
        knowledge: sites where the pruned adapter's knowledge is kept.
    """

    names: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    owners: Owners = field(default_factory=dict)
    knowledge: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        return "adapters" if self.owners else "importance"

    @property
    def pruned(self) -> frozenset[str]:
        """Sites whose own adapter is gone."""
        return frozenset(site for site, owner in self.owners.items() if owner != site)

    @property
    def served(self) -> tuple[str, ...]:
        """Sites where the adapter of another one serves."""
        return tuple(site for site, owner in self.owners.items() if owner not in (site, None))


@dataclass(frozen=True)
class Parts:
    """The attention heads of a backbone, or the rank-1 components of its adapters.

    Args:
        names: of all parts, `<attention>.heads.<index>` or `<site>.ranks.<index>`.
        scores: importance of each; empty where it is not known.
        pruned: names of the pruned ones.
    """

    names: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    pruned: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        return "attention heads" if ".heads." in self.names[0] else "rank-1 components"


@dataclass(frozen=True)
class Channels:
    """How many channels, attention heads or blocks of its weight each layer of a network keeps.

    Args:
        kept: how many remain, and how many there were, by `<module>.channels` or `<site>.blocks`.
        pruned: names of the pruned units, as far as known.
    """

    kept: Mapping[str, tuple[int, int]]
    pruned: frozenset[str] = frozenset()

    @classmethod
    def from_names(cls, names: Iterable[str], pruned: frozenset[str] = frozenset()) -> "Channels":
        """Count units by their names, `<module>.channels.<index>`."""
        total = Counter(name.rpartition(".")[0] for name in names)
        gone = Counter(name.rpartition(".")[0] for name in pruned)
        return cls({layer: (count - gone[layer], count) for layer, count in total.items()}, pruned)

    @property
    def title(self) -> str:
        if all(layer.endswith(".blocks") for layer in self.kept):
            return "blocks"
        heads = [layer.endswith(HEADS) for layer in self.kept]
        return " and ".join(["channels"] * (not all(heads)) + ["attention heads"] * any(heads))


Pruned = Sites | Parts | Channels


def from_lineage(lineage: Lineage) -> Pruned | None:
    """What is known of an artifact's units, or None where it has none.

    A share map comes from the artifact itself, or from the model that it holds or evaluated; importance from
    the scores that it goes back to, as long as they are in the store.
    """
    artifact, scored = lineage.artifact, lineage.last("score")
    scores = Importance.from_json(scored.json("importance")).by_name() if scored is not None else {}
    chosen = lineage.last("prune-share")
    masked = chosen is not None and "mask.json" in chosen.manifest["files"]
    if artifact.stage == "score":
        return _scored(scores)
    if artifact.stage == "prune-share" and not masked:
        owners = dict(ShareMap.from_json(artifact.json("share_map")).owners)
        return Sites(tuple(owners), scores, owners)
    if artifact.stage != "prune-share":
        holder = lineage.last("train") if artifact.stage == "eval" else artifact
        adapted = "checkpoint" in {*artifact.inputs, *(each.stage for each in lineage.all)}
        if holder is None or "model.json" not in holder.manifest["files"] or not adapted:
            return None
        if not masked:
            return from_description(holder.json("model"), scores)
    assert chosen is not None  # it is what was masked
    return _masked(Mask.from_json(chosen.json("mask")), scores)


def from_description(description: Any, scores: Mapping[str, float]) -> Pruned | None:
    """What a described model has, or None where it is not known which of its channels remain.

    Args:
        description: content of a model.json.
        scores: importance by site, as far as known.

    Raises:
        StoreError: it is not the description of a model.
    """
    try:
        owners = {
            str(site): None if home is None else str(home) for site, home in description["owners"].items()
        }
        kept = description["knowledge"] is not None
        if description.get("mask") is not None:
            return _masked(Mask.from_json(description["mask"]), scores)
        if description.get("widths"):
            return None
    except (KeyError, TypeError, AttributeError):
        raise StoreError("model.json is not the description of a model of pear") from None
    if any(home is not None and home not in owners for home in owners.values()):
        raise StoreError("model.json names an owner that is no site")
    found = Sites(tuple(owners), scores, owners)
    return Sites(found.names, scores, owners, found.pruned) if kept else found


def _scored(scores: Mapping[str, float]) -> Pruned:
    names = tuple(scores)
    if any(COUNTED.search(name) for name in names):
        return Channels.from_names(names)
    return Parts(names, scores) if any(map(PART.search, names)) else Sites(names, scores)


def _masked(mask: Mask, scores: Mapping[str, float]) -> Pruned | None:
    pruned = frozenset(mask.pruned)
    if mask.unit in (Unit.channel, Unit.block):  # without scores nobody knows how many there were
        return Channels.from_names(scores, pruned) if scores else None
    names = tuple(scores) or mask.pruned
    return Parts(names, scores, pruned) if names else Sites(())


Places = dict[str, tuple[int, str]]


def place(sites: Iterable[str]) -> Places:
    """Block and slot of each site; blocks count from 0 in the order of the numbers in their path."""
    found = {}
    for site in sites:
        match = SITE.fullmatch(site)
        path, slot = (match["path"], match["slot"]) if match else site.rpartition(".")[::2]
        found[site] = (path, slot)
    paths = sorted(
        {path for path, _ in found.values()}, key=lambda path: list(map(int, re.findall(r"\d+", path)))
    )
    places = {site: (paths.index(path), slot) for site, (path, slot) in found.items()}
    return dict(sorted(places.items(), key=lambda item: item[1][0]))


def largest(scores: Mapping[str, float]) -> float:
    """The largest importance, what others are shown as shares of; 1 where there is none."""
    return max(map(abs, scores.values()), default=0.0) or 1.0
