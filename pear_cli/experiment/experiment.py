"""One experiment: its settings, and the key of each of its stages.

Nothing here needs torch or timm: what an experiment would compute, and what of it is there already, is
known before anything heavy is loaded.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pear_cli.adapters.method import Method
from pear_cli.backbone.identity import weights_hash
from pear_cli.config.choices import Criterion, Phase, Reduction, Schedule, ScoreOf, Select, Unit, View
from pear_cli.config.range import Checked, Seed
from pear_cli.config.settings import Backbone, Knowledge, Optim, Prune, Runtime, Score, Share
from pear_cli.data.dataset import Dataset
from pear_cli.errors import ConfigError
from pear_cli.experiment.step import Step, of_round
from pear_cli.pruning.choose import exactly
from pear_cli.store.canonical import to_node

NOT_TRAINED_ON = ("test_split", "root", "download", "path", "cache", "metric")
"""Settings of a dataset that training does not depend on; its files enter by their fingerprint."""

IN_THE_HASH = ("pretrained", "weights", "seed")
"""Settings of a backbone that the hash of its weights stands for."""

USUAL = Score(Unit.adapter, Criterion.taylor, Reduction.mean_abs, ScoreOf.gate, View.adapter, None, 32)
"""What settings of scoring become where nothing reads them: the values of the default preset."""


@dataclass(frozen=True)
class Experiment(Checked):
    """The root config, validated as a whole.

    `prune.ratio=0` is the dense baseline of equal budget: nothing is shared or kept, whatever the other
    nodes say. A method without adapters has one phase, as long as both phases of the others.
    """

    dataset: Dataset
    backbone: Backbone
    method: Method
    score: Score
    prune: Prune
    share: Share
    knowledge: Knowledge
    optim: Optim
    runtime: Runtime
    seed: Seed
    select: Select
    phase: Phase | None
    overrides: tuple[str, ...] = field(default=(), compare=False)

    @property
    def prunes(self) -> bool:
        """Whether there is anything to score and prune: adapters, or channels of the whole network."""
        return self.method.has_units or self.score.unit is Unit.channel

    @property
    def dense_epochs(self) -> int:
        """Epochs before pruning; all of them for a method that prunes nothing."""
        return self.optim.dense_epochs if self.prunes else self.optim.epochs

    def pruning(self, round: int) -> Prune:
        """What is pruned by the end of a round: an even share of the ratio more than in the round before."""
        last = round == self.prune.steps
        ratio = self.prune.ratio if last else float(exactly(self.prune.ratio) * round / self.prune.steps)
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

    @cached_property
    def plan(self) -> dict[str, Step]:
        """Every step of the experiment, in order, each with its key.

        Raises:
            ConfigError, DataError: weights or data that the keys need are not there.
        """
        weights, data = weights_hash(self.backbone), self._training_data()
        dense = Step("train", "train", self._dense(), {}, data, weights)
        steps = [dense, *(self._rounds(dense) if self.prunes else ())]
        phase = self.phase or (Phase.shared if self.prunes else Phase.dense)
        if phase is Phase.shared and not self.prunes:
            raise ConfigError(f"phase=shared: {type(self.method).__name__} has no adapters to share")
        evaluated = {"adapt": steps[-1]} if phase is Phase.shared else {"train": dense}
        split = self.dataset.test_split
        config = {"phase": phase, "test_split": split, "metric": self.dataset.metric, **self._precision}
        tested = {split: self.dataset.fingerprint(split)}
        steps.append(Step("eval", "eval", config, evaluated, tested, weights))
        return {step.name: step for step in steps}

    def _rounds(self, dense: Step) -> Iterator[Step]:
        """Score, prune and share, checkpoint and adapt: once, or in every round of pruning."""
        trained, before = dense, dict[str, Step]()
        for i in range(1, self.prune.steps + 1):
            score, choice, kept, trained = self._round(i, dense, trained, before)
            yield from (score, choice, kept, trained)
            before = {"scored": score, "pruned": choice}

    def _round(
        self, i: int, dense: Step, trained: Step, before: Mapping[str, Step]
    ) -> tuple[Step, Step, Step, Step]:
        def step(name: str, stage: str, config: Any, inputs: Mapping[str, Step], *splits: str) -> Step:
            data = {split: dense.data[split] for split in splits}
            return Step(of_round(name, i, self.prune.steps), stage, config, inputs, data, dense.backbone, i)

        start = {"train": trained, **before}
        score = step("score", "score", self._scoring(self.score), start, self.dataset.train_split)
        if self.prune.ratio == 0:  # whatever the scores are, nothing goes
            usual = self._scoring(dataclasses.replace(USUAL, unit=self.score.unit))
            score = dataclasses.replace(score, alike=dataclasses.replace(score, config=usual))
        pruning = {"prune": self.pruning(i), "share": self.share}
        choice = step("prune-share", "prune-share", pruning, {"score": score})
        made_of = {"train": trained, "score": score, "prune-share": choice}
        kept = step("checkpoint", "checkpoint", {"knowledge": self.knowledge}, made_of)
        adapted = step("adapt", "train", self._adapting(i), {"checkpoint": kept}, *dense.data)
        return score, choice, kept, adapted

    def _training_data(self) -> dict[str, str]:
        splits = [self.dataset.train_split]
        splits += ["val200"] if self.select is Select.val else []
        splits += [self.dataset.test_split] if self.select is Select.test_oracle else []
        return {split: self.dataset.fingerprint(split) for split in splits}

    @property
    def _precision(self) -> dict[str, str]:
        return {"precision": self.runtime.precision.value}

    def _dense(self) -> dict[str, Any]:
        """What dense training depends on."""
        return {
            "phase": Phase.dense,
            "backbone": {k: v for k, v in self.backbone.to_json().items() if k not in IN_THE_HASH},
            "dataset": to_node(self.dataset, *NOT_TRAINED_ON, *self.dataset.in_the_fingerprint),
            "method": self.method_node(),
            **self._training(Phase.dense),
        }

    def _scoring(self, score: Score) -> dict[str, Any]:
        seed = {"seed": self.seed} if score.criterion is Criterion.random else {}
        return {"score": score, **self._precision, **seed}

    def _adapting(self, round: int) -> dict[str, Any]:
        """What the adaptation of a round depends on, beside its checkpoint."""
        epochs = self.adaptation(round)
        span = {"from_epoch": epochs.start, "to_epoch": epochs.stop} if self.prune.steps > 1 else {}
        return {"phase": Phase.shared, **self._training(Phase.shared), **span}

    def _training(self, phase: Phase) -> dict[str, Any]:
        """What training in a phase depends on, beside the model that it starts from."""
        unused = {"optimizer_state", "shared_grad"} if phase is Phase.dense else set()
        if self.optim.schedule is Schedule.continued and self.prunes:
            unused |= {"adapt_epochs"}
        else:
            unused |= {"prune_at", "schedule", "adapt_epochs" if phase is Phase.dense else "epochs"}
        names = [setting.name for setting in dataclasses.fields(self.optim)]
        optim = {name: getattr(self.optim, name) for name in names if name not in unused}
        return {"optim": optim, "select": self.select, "seed": self.seed, **self._precision}


GROUPS: Mapping[str, type] = {
    setting.name: setting.type
    for setting in dataclasses.fields(Experiment)
    if isinstance(setting.type, type) and dataclasses.is_dataclass(setting.type)
}
"""The groups of the root config, each with its class or the base of its classes."""
