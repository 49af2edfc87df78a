"""A step of an experiment: one stage, and the key of its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pear_cli.store.canonical import make_key

VERSIONS = {"train": 2, "score": 3, "prune-share": 2, "checkpoint": 2, "eval": 1}
ORDER = ("train", "score", "prune-share", "checkpoint", "adapt", "eval")


@dataclass(frozen=True)
class Step:
    """One stage of an experiment, and all that its result depends on.

    Args:
        name: of the step in the experiment, one of `ORDER`; `adapt` is `train` with phase=shared. Of several
            rounds of pruning, `score.1` … `adapt.1` stand before the last ones.
        stage: folder in the store.
        config: the stage's own part of the root config.
        inputs: the steps whose artifacts it reads, by the part that each plays.
        data: fingerprint of each data split that it reads.
        backbone: hash of the frozen weights.
        round: which of the `prune.steps` rounds it belongs to, from 1.
        alike: a step whose result would do as well for the steps that follow, whose keys name it instead.
    """

    name: str
    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, "Step"]
    data: Mapping[str, str]
    backbone: str
    round: int = 1
    alike: "Step | None" = None

    @cached_property
    def key(self) -> str:
        inputs = {name: (step.alike or step).key for name, step in self.inputs.items()}
        return make_key(self.stage, VERSIONS[self.stage], self.config, inputs, dict(self.data), self.backbone)


def of_round(name: str, round: int, rounds: int) -> str:
    """The name of a step: that of the last round is the plain one."""
    return name if round == rounds else f"{name}.{round}"
