"""What is there of a dataset: places, numbers, fingerprints."""

from dataclasses import dataclass
from typing import Any

from pear_cli.data import storage
from pear_cli.data.dataset import Dataset
from pear_cli.data.splits import SPLITS
from pear_cli.store.canonical import canonical, to_node


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
    classes = len(dataset.classes())

    def read() -> dict[str, Any]:
        return {
            "classes": classes,
            "images": {split: dataset.count(split) for split in SPLITS},
            "fingerprints": {split: dataset.fingerprint(split) for split in SPLITS},
        }

    return _survey(storage.remembered(_key(dataset), dataset.holding().places or (), read))


def known(dataset: Dataset) -> Survey | None:
    """The last survey of a dataset, if no file has changed since; one that comes with pear always has one."""
    if dataset.holding().places is None:
        return survey(dataset)
    facts = storage.recall(_key(dataset))
    return _survey(facts) if facts else None


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


def _survey(facts: dict[str, Any]) -> Survey:
    return Survey(facts["classes"], facts["images"], facts["fingerprints"])


def _key(dataset: Dataset) -> str:
    return f"survey {canonical(to_node(dataset), 'dataset')}"
