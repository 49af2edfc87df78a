"""Under which protocol an evaluation was made: what two of them must have in common to be compared."""

from collections.abc import Iterable, Mapping

from pear_cli.report.lineage import Lineage
from pear_cli.report.spelling import value

SETTINGS = (
    "dataset",
    "dataset.normalization",
    "dataset.train_split",
    "dataset.test_split",
    "dataset.split_seed",
    "select",
    "backbone.name",
    "backbone.mean",
    "backbone.std",
    "backbone.args",
)
"""Settings of the protocol; a name with a group's own keys below it stands for all of them."""

DIGITS = 8  # of a hash, for a reader

Protocol = Mapping[str, str]


def protocol(lineage: Lineage) -> Protocol:
    """The protocol of an evaluation by name, each value as a reader has it; a lost input leaves gaps."""
    found: dict[str, str] = {}
    for name in SETTINGS:
        below = {key: item for key, item in lineage.settings.items() if key.startswith(f"{name}.")}
        if lineage.setting(name) is not None:
            found[name] = value(lineage.setting(name))
        elif name == "backbone.args":
            found |= {key: value(item) for key, item in below.items()}
    for name, content in lineage.provenance.items():
        found["frozen weights" if name == "weights" else name] = str(content)[:DIGITS]
    return found


def differences(protocols: Iterable[Protocol]) -> dict[str, tuple[str, ...]]:
    """In what protocols differ: each name with its values, in the order of their appearance.

    What one of them does not know, because an input of it is gone, is no difference.
    """
    known: dict[str, dict[str, None]] = {}
    for one in protocols:
        for name, said in one.items():
            known.setdefault(name, {})[said] = None
    return {name: tuple(values) for name, values in known.items() if len(values) > 1}


def in_words(found: Mapping[str, tuple[str, ...]]) -> str:
    """`select (last, val); frozen weights (a4e26041, f460c007)`."""
    return "; ".join(f"{name} ({', '.join(values)})" for name, values in found.items())
