"""What is there of a dataset: places, numbers, fingerprints."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pear_cli.config.node import to_node
from pear_cli.data import places
from pear_cli.data.dataset import Dataset
from pear_cli.data.splits import SPLITS
from pear_cli.store import cache
from pear_cli.store.canonical import canonical


@dataclass(frozen=True)
class Survey:
    """What a dataset has.

    Args:
        classes: their number.
        images: by split.
        fingerprints: by split, SHA-256 in hex.
    """

    classes: int
    images: dict[str, int]
    fingerprints: dict[str, str]


def survey(dataset: Dataset) -> Survey:
    """Find out what a dataset has, downloading it where that is needed and allowed; it is remembered."""
    found = Survey(
        classes=len(dataset.classes()),
        images={split: dataset.count(split) for split in SPLITS},
        fingerprints={split: dataset.fingerprint(split) for split in SPLITS},
    )
    held = dataset.holding().places
    if held:
        signed = {"signature": places.signature(held), **dataclasses.asdict(found)}
        cache.remember(_key(dataset), signed)
    return found


def known(dataset: Dataset) -> Survey | None:
    """The last survey of a dataset, if no file has changed since; one that comes with pear always has one."""
    held = dataset.holding().places
    if held is None:
        return survey(dataset)
    facts: dict[str, Any] = cache.recall(_key(dataset))
    if not facts or places.signature(held) != facts.pop("signature", ""):
        return None
    return Survey(**facts)


def to_json(dataset: Dataset, found: Survey | None) -> dict[str, Any]:
    """What is known of a dataset, for scripts."""
    holding = dataset.holding()
    return {
        "dataset": dataset.name,
        "present": holding.present,
        "places": [str(place) for place in holding.places or ()],
        "source": holding.source,
        "classes": found and found.classes,
        "splits": found
        and {
            split: {"images": found.images[split], "fingerprint": found.fingerprints[split]}
            for split in SPLITS
        },
    }


def _key(dataset: Dataset) -> str:
    return f"survey {canonical(to_node(dataset), 'dataset')}"
