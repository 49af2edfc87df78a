"""What two evaluations must have in common before their accuracies can be compared."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pear_cli.backbone import weights_name
from pear_cli.report.lineage import Lineage

SETTINGS = (
    "select",
    "dataset.normalization",
    "dataset.resize",
    "dataset.crop_pct",
    "dataset.interpolation",
    "dataset.train_split",
    "dataset.test_split",
    "dataset.split_seed",
    "backbone.name",
    "backbone.mean",
    "backbone.std",
)
HASHES = {"weights": "frozen weights"}
"""Of what an experiment read, and how a note calls them; the images of a split are `data.<split>`."""

ORACLE = "test_oracle: the epoch was chosen on the test set; the accuracy is too high to compare"


def protocol(lineage: Lineage) -> dict[str, Any]:
    """The settings that must agree, and the hashes of the weights and the images."""
    hashes = {name: value for name, value in lineage.provenance.items() if value}
    return {key: lineage.setting(key) for key in SETTINGS} | hashes


def notes(listed: Iterable[Lineage]) -> list[str]:
    """What a reader who compares these evaluations must know; other stages have no accuracy."""
    evaluations = [lineage for lineage in listed if lineage.artifact.stage == "eval"]
    said = []
    if any(lineage.setting("select") == "test_oracle" for lineage in evaluations):
        said.append(ORACLE)
    of: dict[str, list[Lineage]] = defaultdict(list)
    for lineage in evaluations:
        if not lineage.missing:
            of[str(lineage.setting("dataset"))].append(lineage)
    for dataset, together in of.items():
        differing = differences([protocol(lineage) for lineage in together])
        if differing:
            said.append(f"evaluations of {dataset} are not comparable: {'; '.join(differing)}")
    gone = sum(bool(lineage.missing) for lineage in evaluations)
    if gone:
        said.append(
            f"{gone} of them {'has' if gone == 1 else 'have'} lost inputs: not all settings are known"
        )
    return said


def differences(protocols: Sequence[dict[str, Any]]) -> list[str]:
    """Where protocols differ, each with the values that occur."""
    found = []
    for key in dict.fromkeys(key for known in protocols for key in known):
        # a split that only some have read, such as val200 with select=val, is no contradiction
        spelled = sorted({_plain(known[key]) for known in protocols if key in known})
        if len(spelled) > 1:
            shown = spelled if key in SETTINGS else [short(text) for text in spelled]
            found.append(f"{HASHES.get(key, key)} ({', '.join(shown)})")
    return found


def short(identity: str) -> str:
    """A name of weights or images for a line of text: a hash by its first digits."""
    name = weights_name(identity)
    return name if name != identity else name[:8]


def _plain(value: object) -> str:
    return "null" if value is None else str(value)
