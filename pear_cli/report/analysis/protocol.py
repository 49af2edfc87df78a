"""Under which protocol an evaluation was made: what two of them must have in common to be compared."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pear_cli.backbone.identity import weights_name
from pear_cli.errors import printable
from pear_cli.experiment.lineage import Lineage
from pear_cli.report.spelling import value

SETTINGS = (
    *("select", "dataset.normalization", "dataset.resize", "dataset.crop_pct", "dataset.interpolation"),
    *("dataset.train_split", "dataset.test_split", "dataset.split_seed"),
    *("backbone.name", "backbone.mean", "backbone.std", "backbone.batch_norm"),
)
ARGS = "backbone.args."
"""Begins the settings of the architecture, all of which are of the protocol."""

ORACLE = "test_oracle: the epoch was chosen on the test set; the accuracy is too high to compare"

Protocol = Mapping[str, str]


def protocol(lineage: Lineage) -> Protocol:
    """The protocol of an evaluation by name, each value as a reader has it; a lost input leaves gaps."""
    names = ["dataset", *SETTINGS, *(key for key in lineage.settings if key.startswith(ARGS))]
    known = {name: lineage.setting(name) for name in names if lineage.named(name)}
    found = {name: value(item) for name, item in known.items()}
    for name, content in lineage.provenance.items():
        found["frozen weights" if name == "weights" else name] = short(str(content))
    return {printable(name): printable(said) for name, said in found.items()}


def differences(protocols: Iterable[Protocol]) -> dict[str, tuple[str, ...]]:
    """In what protocols differ: each name with its values, in the order of their appearance.

    What one of them does not know is no difference: an input of it is gone, or it read no such split.
    """
    known: dict[str, dict[str, None]] = {}
    for one in protocols:
        for name, said in one.items():
            known.setdefault(name, {})[said] = None
    return {name: tuple(values) for name, values in known.items() if len(values) > 1}


def of_other_images(protocols: Iterable[Protocol]) -> bool:
    """Whether these evaluations saw different images, in training or test; they are not subtracted then."""
    return any(name == "dataset" or name.startswith("data.") for name in differences(protocols))


def in_words(found: Mapping[str, tuple[str, ...]]) -> str:
    """`select (last, val); frozen weights (a4e26041, f460c007)`."""
    return "; ".join(f"{name} ({', '.join(sorted(values))})" for name, values in found.items())


def notes(listed: Iterable[Lineage]) -> list[str]:
    """What a reader who compares these evaluations must know; other stages have no accuracy."""
    evaluations = [lineage for lineage in listed if lineage.artifact.stage == "eval"]
    said = []
    if any(lineage.setting("select") == "test_oracle" for lineage in evaluations):
        said.append(ORACLE)
    known: dict[str, list[Protocol]] = defaultdict(list)
    for lineage in evaluations:
        if not lineage.missing:
            known[str(lineage.setting("dataset"))].append(protocol(lineage))
    for dataset, protocols in known.items():
        if found := differences(protocols):
            said.append(f"evaluations of {dataset} are not comparable: {in_words(found)}")
    if gone := sum(bool(lineage.missing) for lineage in evaluations):
        have = "has" if gone == 1 else "have"
        said.append(f"{gone} of {len(evaluations)} {have} lost inputs: not all settings are known")
    return said


def short(identity: str) -> str:
    """A name of weights or images for a line of text: a hash by its first digits."""
    name = weights_name(identity)
    return name if name != identity else name[:8]
