"""What differs between two artifacts: settings, protocol, environment, results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.special import bdtr

from pear_cli.experiment.lineage import Lineage
from pear_cli.report.analysis.listing import Row
from pear_cli.report.analysis.predictions import Predictions
from pear_cli.report.analysis.protocol import differences, in_words, of_other_images, protocol
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

Pairs = Mapping[str, tuple[Any, Any]]
"""What the one and what the other has; None where it has nothing."""

OF_ITSELF = ("key", "created", "stage", "notes")


@dataclass(frozen=True)
class Agreement:
    """How two models do on the same images.

    Args:
        both, first, second, neither: images that both, only the one or none of them label rightly.
        p: of McNemar's exact test, that being right alone is as likely for either.

    Source: McNemar 1947; exact binomial form.
    """

    both: int
    first: int
    second: int
    neither: int
    p: float


@dataclass(frozen=True)
class Difference:
    """What differs between two artifacts.

    Args:
        names: `<stage>/<key>` of each.
        settings, measured, environment: what is not equal, by name.
        apart: in words, what of the protocol keeps them from being compared.
        agreement: of two evaluations on the same images.
        of_other_images: whether they have seen different images; their results are not subtracted then.
    """

    names: tuple[str, str]
    settings: Pairs
    measured: Pairs
    environment: Pairs
    apart: str
    agreement: Agreement | None
    of_other_images: bool

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; pairs are lists there."""
        return {
            "artifacts": self.names,
            **{"settings": self.settings, "measured": self.measured, "environment": self.environment},
            "not_comparable": self.apart or None,
            "agreement": self.agreement and vars(self.agreement),
        }


def between(first: Artifact, second: Artifact, store: Store) -> Difference:
    """Compare two artifacts with all that they were made from.

    Raises:
        CorruptArtifact: damaged predictions.
    """
    rows = [Row(Lineage.from_artifact(artifact, store.find)) for artifact in (first, second)]
    lineages = [row.lineage for row in rows]
    measured = [_measured(row) for row in rows]
    environments = [_plain(row.artifact.manifest["environment"]) | row.lineage.provenance for row in rows]
    protocols = [protocol(lineage) for lineage in lineages]
    return Difference(
        (f"{rows[0].step}/{first.key}", f"{rows[1].step}/{second.key}"),
        _unequal(*(lineage.settings for lineage in lineages)),
        _unequal(*measured),
        _unequal(*environments),
        in_words(differences(protocols)),
        _agreement(*lineages),
        of_other_images(protocols),
    )


def _measured(row: Row) -> dict[str, Any]:
    """What was measured, the metrics before the costs."""
    ordered = {**row.artifact.manifest["metrics"], **row.measured}
    return {name: value for name, value in ordered.items() if name not in OF_ITSELF}


def _unequal(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    names = dict.fromkeys((*first, *second))
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _agreement(first: Lineage, second: Lineage) -> Agreement | None:
    """None unless both were evaluated on the same images."""
    data = [_plain_data(lineage) for lineage in (first, second)]
    if data[0] is None or data[0] != data[1]:
        return None
    read = [Predictions.from_artifact(lineage.artifact) for lineage in (first, second)]
    if read[0] is None or read[1] is None or len(read[0].labels) != len(read[1].labels):
        return None
    mine, theirs = read[0].right, read[1].right
    alone = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    p = min(1.0, 2 * float(bdtr(min(alone), sum(alone), 0.5)))
    return Agreement(int((mine & theirs).sum()), *alone, int((~mine & ~theirs).sum()), p)


def _plain_data(lineage: Lineage) -> object:
    if lineage.artifact.stage != "eval":
        return None
    return lineage.artifact.manifest["environment"].get("data")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Mapping)}
