"""What an evaluation predicted: who was taken for whom, and whether it is as sure as it is right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from pear_cli.store.artifact import Artifact, corrupt

FILE = "predictions.safetensors"
BINS = 15


@dataclass(frozen=True)
class Bin:
    """The predictions of one interval of confidence.

    Args:
        low, high: its ends, in [0, 1]; `low` is not part of it.
        images: how many there are.
        accuracy, confidence: their means; 0 where there are none.
    """

    low: float
    high: float
    images: int
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy are apart.

    Args:
        bins: of equal width.
        error: expected calibration error, the mean over images of |accuracy - confidence| of their bin.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2; 15 bins.
    """

    bins: tuple[Bin, ...]
    error: float


@dataclass(frozen=True)
class Predictions:
    """The logits of a split.

    Args:
        logits: N, classes.
        labels: N, the true classes.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> "Predictions | None":
        """Read those of an evaluation; None where it has none.

        Raises:
            CorruptArtifact: an altered file, or one with other tensors.
        """
        if FILE not in artifact.manifest["files"]:
            return None
        try:
            tensors = load(artifact.read(FILE))
            logits, labels = tensors["logits"].astype(np.float64), tensors["labels"].astype(np.int64)
        except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise corrupt(artifact.path, f"{FILE} does not hold logits and labels ({error})") from None
        sound = logits.ndim == 2 and labels.shape == logits.shape[:1] and logits.shape[1] > 0
        if not sound or (len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]):
            raise corrupt(artifact.path, f"{FILE}: logits {logits.shape} and labels {labels.shape} disagree")
        return cls(logits, labels)

    @property
    def right(self) -> NDArray[np.bool_]:
        """N, whether the label was predicted."""
        found: NDArray[np.bool_] = self.logits.argmax(axis=1) == self.labels
        return found

    def confusion(self) -> list[list[int]]:
        """classes x classes: images of a class (row) by the class that they were taken for (column)."""
        classes = self.logits.shape[1]
        counts = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts, (self.labels, self.logits.argmax(axis=1)), 1)
        return [row.tolist() for row in counts]

    def calibration(self) -> Calibration:
        """Accuracy by confidence, the softmax of the predicted class."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        confidence = (shifted / shifted.sum(axis=1, keepdims=True)).max(axis=1)
        index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        bins = []
        for place in range(BINS):
            here = index == place
            images = int(here.sum())
            accuracy, sure = (float(v[here].mean()) if images else 0.0 for v in (self.right, confidence))
            bins.append(Bin(place / BINS, (place + 1) / BINS, images, accuracy, sure))
        total = max(1, len(self.labels))
        error = sum(one.images * abs(one.accuracy - one.confidence) for one in bins) / total
        return Calibration(tuple(bins), error)


def confused(counts: Sequence[Sequence[int]], most: int) -> list[tuple[int, int, int]]:
    """The pairs that are mistaken most often: class, what it was taken for, how often."""
    pairs = [
        (true, predicted, count)
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and predicted != true
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]
