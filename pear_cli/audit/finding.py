"""What an audit looks at, and what it finds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.experiment.experiment import Experiment
from pear_cli.model import models
from pear_cli.model.description import Description

CLASSES, IMAGES = 10, 2
SPREAD = 0.1  # standard deviation of what stands in for trained values


class Verdict(Enum):
    """Whether a check has passed; `none` where there is nothing to pass."""

    ok = "ok"
    failed = "FAIL"
    none = "—"


@dataclass(frozen=True)
class Finding:
    """What one check came to.

    Args:
        verdict: whether it has passed.
        value: what was measured or counted; null where nothing was.
        meaning: what that means; of a failure, what to do.
    """

    verdict: Verdict
    value: float | int | str | None
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite becomes text."""
        strange = isinstance(self.value, float) and not math.isfinite(self.value)
        value = str(self.value) if strange else self.value
        return {"result": self.verdict.value, "value": value, "meaning": self.meaning}


@dataclass
class Subject:
    """A model, what it is stored with, and the noise that it is tried on.

    Args:
        experiment: that it is of.
        model: on the CPU, in eval mode.
        description: of the model.
        kept: the knowledge of pruned adapters, encoded.
        images: (B, 3, H, W).
        noise: source of all that is random.
        stirred: frozen parameters that random weights start at zero, and that are noise here.
    """

    experiment: Experiment
    model: nn.Module
    description: Description
    kept: Mapping[str, Tensor]
    images: Tensor
    noise: torch.Generator
    stirred: tuple[str, ...] = ()

    @property
    def adaptation(self) -> Adaptation:
        return models.adaptation(self.model)

    @property
    def method(self) -> str:
        """Name of the method's class."""
        return type(self.experiment.method).__name__

    @property
    def logits(self) -> Tensor:
        """What the model says of the images, (B, K)."""
        return says(self.model, self.images)

    def noise_like(self, tensor: Tensor) -> Tensor:
        """Values as if the tensor had been trained."""
        return torch.randn(tensor.shape, generator=self.noise) * SPREAD


Check = Callable[[Subject], Finding]


@torch.inference_mode()
def says(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of images, (B, K), in eval mode."""
    logits: Tensor = model.eval()(images)
    return logits


def compare(found: Tensor, expected: Tensor, tolerance: float, good: str, bad: str) -> Finding:
    """Judge max |Δlogit| / max(1, |logit|)."""
    error = ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()
    passed = error <= tolerance  # not so where it is not a number
    return Finding(Verdict.ok if passed else Verdict.failed, error, good if passed else bad)
