"""One experiment: its validated nodes, and the key of each of its stages.

Nothing here needs torch or timm: what an experiment would compute, and what of it is there already, is
known before anything heavy is loaded.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pear_cli.adapters.method import Method
from pear_cli.backbone import build as backbones
from pear_cli.config import choices
from pear_cli.config import settings as nodes
from pear_cli.config.choices import Phase, Select, Unit
from pear_cli.config.node import node, to_node
from pear_cli.data.dataset import Dataset
from pear_cli.errors import ConfigError, near
from pear_cli.experiment.normalise import normalised
from pear_cli.experiment.step import ORDER, Step, of_round
from pear_cli.runtime import Runtime

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUPS: dict[str, type] = {
    "dataset": Dataset,
    "backbone": nodes.Backbone,
    "method": Method,
    "score": nodes.Score,
    "prune": nodes.Prune,
    "share": nodes.Share,
    "knowledge": nodes.Knowledge,
    "optim": nodes.Optim,
    "runtime": Runtime,
}


NOT_TRAINED_ON = ("test_split", "root", "download", "path", "cache", "metric")
"""Settings of a dataset that training does not depend on; its files enter by their fingerprint."""

IN_THE_HASH = ("pretrained", "weights", "seed")
"""Settings of a backbone that the hash of its weights stands for."""


@dataclass(frozen=True)
class Experiment:
    """The root config, validated as a whole.

    `prune.ratio=0` is the dense baseline of equal budget: nothing is shared or kept, whatever the other
    nodes say. A method without adapters has one phase, as long as both phases of the others.
    """

    dataset: Dataset
    backbone: nodes.Backbone
    method: Method
    score: nodes.Score
    prune: nodes.Prune
    share: nodes.Share
    knowledge: nodes.Knowledge
    optim: nodes.Optim
    runtime: Runtime
    seed: int
    select: Select
    phase: Phase | None
    overrides: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def from_config(cls, cfg: "DictConfig", overrides: tuple[str, ...] = ()) -> "Experiment":
        """Validate a composed root config.

        Raises:
            ConfigError: it names the key, the value and the remedy.
        """
        known = [*GROUPS, "seed", "select", "phase"]
        for key in cfg:
            if key not in known:
                raise ConfigError(
                    f"no setting {key!r}{near(str(key), known) or ';'} at the root: {', '.join(known)}"
                )
        select = _enum(Select, cfg.get("select"), "select")
        dataset = _plain(cfg, "dataset")
        if dataset.get("train_split") is None:
            dataset["train_split"] = "train800" if select is Select.val else "train800val200"
        values: dict[str, Any] = {
            group: node(dataset if group == "dataset" else cfg.get(group), base, group)
            for group, base in GROUPS.items()
        }
        seed = cfg.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"seed = {seed} is out of range: a whole number, at least 0")
        phase = None if cfg.get("phase") is None else _enum(Phase, cfg.get("phase"), "phase")
        return normalised(cls(**values, seed=seed, select=select, phase=phase, overrides=overrides))

    @property
    def prunes(self) -> bool:
        """Whether there is anything to score and prune: adapters, or channels of the whole network."""
        return self.method.has_units or self.score.unit is Unit.channel

    @property
    def dense_epochs(self) -> int:
        """Epochs before pruning; all of them for a method that prunes nothing."""
        return self.optim.dense_epochs if self.prunes else self.optim.epochs

    @cached_property
    def plan(self) -> dict[str, Step]:
        """Every step of the experiment, in order, each with its key.

        Raises:
            ConfigError, DataError: weights or data that the keys need are not there.
        """
        weights = backbones.weights_hash(self.backbone)
        train_data = self._fingerprints(training=True)
        precision = self.runtime.precision.value
        common = {"select": self.select, "seed": self.seed, "precision": precision}
        steps: dict[str, Step] = {}

        def add(
            name: str,
            stage: str,
            config: dict[str, Any],
            inputs: Mapping[str, str],
            data: dict[str, str],
            round: int = 1,
        ) -> None:
            needed = {role: steps[step] for role, step in inputs.items()}
            steps[name] = Step(name, stage, config, needed, data, weights, round)

        dense = {
            "phase": Phase.dense,
            "backbone": {k: v for k, v in self.backbone.to_json().items() if k not in IN_THE_HASH},
            "dataset": to_node(self.dataset, *NOT_TRAINED_ON),
            "method": self.method_node(),
            "optim": self._optim_part(Phase.dense),
            **common,
        }
        add("train", "train", dense, {}, train_data)
        if self.prunes:
            seed = {"seed": self.seed} if self.score.criterion is choices.Criterion.random else {}
            calibration = {self.dataset.train_split: train_data[self.dataset.train_split]}
            scoring = {"score": self.score, "precision": precision, **seed}
            shared = {"phase": Phase.shared, "optim": self._optim_part(Phase.shared), **common}
            before: dict[str, str] = {}
            for i in range(1, self.prune.steps + 1):
                score, choice, kept, adapted = (of_round(n, i, self.prune.steps) for n in ORDER[1:5])
                trained = before.get("train", "train")
                add(score, "score", scoring, {"train": trained, **before}, calibration, i)
                pruning = {"prune": self.pruning(i), "share": self.share}
                add(choice, "prune-share", pruning, {"score": score}, {}, i)
                known = {"train": trained, "score": score, "prune-share": choice}
                add(kept, "checkpoint", {"knowledge": self.knowledge}, known, {}, i)
                span = {"from_epoch": self.adaptation(i).start, "to_epoch": self.adaptation(i).stop}
                adapting = shared | (span if self.prune.steps > 1 else {})
                add(adapted, "train", adapting, {"checkpoint": kept}, train_data, i)
                before = {"train": adapted, "scored": score, "pruned": choice}
        phase = self.phase or (Phase.shared if self.prunes else Phase.dense)
        if phase is Phase.shared and not self.prunes:
            raise ConfigError(f"phase=shared: {type(self.method).__name__} has no adapters to share")
        test = {self.dataset.test_split: self.dataset.fingerprint(self.dataset.test_split)}
        evaluated = "adapt" if phase is Phase.shared else "train"
        config = {
            "phase": phase,
            "test_split": self.dataset.test_split,
            "metric": self.dataset.metric,
            "precision": precision,
        }
        add("eval", "eval", config, {evaluated: evaluated}, test)
        return steps

    def pruning(self, round: int) -> nodes.Prune:
        """What is pruned by the end of a round: an even share of the ratio more than in the round before."""
        last = round == self.prune.steps
        ratio = self.prune.ratio if last else self.prune.ratio * round / self.prune.steps
        return dataclasses.replace(self.prune, ratio=ratio)

    def adaptation(self, round: int) -> range:
        """The epochs of the adaptation that follow the pruning of a round, counted from 0."""
        epochs, steps = self.optim.shared_epochs, self.prune.steps
        return range(epochs * (round - 1) // steps, epochs * round // steps)

    def method_node(self) -> dict[str, Any]:
        """The method as a config node: its `_target_` and hyper-parameters.

        `lr` is left out: it only fills in `optim.lr`, which training reads.
        """
        return to_node(self.method, "lr")

    def _fingerprints(self, training: bool) -> dict[str, str]:
        splits = [self.dataset.train_split]
        splits += ["val200"] if self.select is Select.val else []
        splits += [self.dataset.test_split] if self.select is Select.test_oracle else []
        return {split: self.dataset.fingerprint(split) for split in splits}

    def _optim_part(self, phase: Phase) -> dict[str, Any]:
        continued = self.optim.schedule is choices.Schedule.continued and self.prunes
        unused = {"optimizer_state", "shared_grad"} if phase is Phase.dense else set()
        if continued:
            unused |= {"adapt_epochs"}
        else:
            unused |= {"prune_at", "schedule", "adapt_epochs" if phase is Phase.dense else "epochs"}
        return _without(self.optim, *unused)


def _without(value: Any, *names: str) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in names}


def _plain(cfg: "DictConfig", group: str) -> dict[str, Any]:
    from omegaconf import DictConfig, OmegaConf

    value = cfg.get(group)
    if not isinstance(value, DictConfig):
        raise ConfigError(f"{group} is {value!r}; it must be a group of settings")
    return dict(OmegaConf.to_container(value, resolve=True))  # type: ignore[arg-type]


def _enum(kind: Any, value: Any, key: str) -> Any:
    names = [member.value for member in kind]
    if value not in names:
        raise ConfigError(f'{key} = "{value}" is unknown{near(str(value), names)}; use {", ".join(names)}')
    return kind(value)
