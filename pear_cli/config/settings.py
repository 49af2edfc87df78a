"""The settings of an experiment: frozen dataclasses, each validated once."""

import re
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pear_cli.config.choices import (
    BatchNorm,
    Criterion,
    Effect,
    KnowledgeKind,
    OptimizerState,
    Precision,
    PruneBy,
    Reduction,
    Schedule,
    Scope,
    ScoreOf,
    SharedGrad,
    ShareRule,
    Tracker,
    Unit,
    View,
)
from pear_cli.config.range import (
    Checked,
    Count,
    Epochs,
    Factor,
    Fraction,
    Probability,
    Range,
    Rank,
    Scale,
    Seed,
    require,
)
from pear_cli.errors import ConfigError

LARGEST = Range(1, 4096)
"""Pixels of a side of an input."""

FETCHING = ("pretrained", "checkpoint", "cache_dir", "hf", "file", "url")
"""Starts of timm arguments that read files or fetch them."""


@dataclass(frozen=True)
class Backbone(Checked, group="backbone"):
    """The frozen network that adapters attach to.

    Args:
        name: a timm architecture, as `timm.list_models()` has it.
        pretrained: take timm's pretrained weights of that name.
        weights: a file: safetensors, a state_dict that torch saved (.pth, .bin, …), or .npz of the original
            ViTs; or `pear_mini`, which comes with the package.
        seed: of random weights, when neither of the two is asked for.
        drop_path: stochastic depth rate while training.
        mean, std: channel statistics that `dataset.normalization=backbone` uses, in [0, 1] pixel units;
            null takes those that timm states for the model.
        args: further arguments of `timm.create_model`, such as `img_size`, `depth`, `embed_dim`.
        batch_norm: whether the running statistics of BatchNorms stay, or follow the batches of training.
    """

    name: str
    pretrained: bool
    weights: str | None
    seed: Seed
    drop_path: Probability
    mean: tuple[Annotated[float, Range(-1000, 1000)], ...] | None
    std: tuple[Annotated[float, Range(1e-6, 1000)], ...] | None
    args: Annotated[dict[str, Any], Range(-65536, 65536)]
    batch_norm: BatchNorm = BatchNorm.frozen

    def __post_init__(self) -> None:
        super().__post_init__()
        LARGEST.check(self.args.get("img_size"), "backbone.args.img_size")
        channels = self.args.get("in_chans", 3)
        require(channels == 3, "backbone.args.in_chans", channels, "3; grey images are repeated over R, G, B")
        if self.pretrained and self.weights:
            raise ConfigError(
                f"backbone.weights = {self.weights} goes with backbone.pretrained=false; both are set now"
            )
        for name in self.args:
            if name.startswith(FETCHING):
                raise ConfigError(
                    f"backbone.args.{name} is refused: frozen weights come from backbone.weights or "
                    "backbone.pretrained alone, where their hash enters the key"
                )
        for key, value in (("mean", self.mean), ("std", self.std)):
            three = value is None or len(value) == 3
            require(three, f"backbone.{key}", value, "three numbers, one a channel")
        if (self.mean is None) != (self.std is None):
            raise ConfigError("backbone.mean and backbone.std go together; set both, or neither")

    def to_json(self) -> dict[str, Any]:
        """The settings by name; without `batch_norm` where it is frozen: older keys and models have none."""
        later = {"batch_norm": self.batch_norm.value} if self.batch_norm is not BatchNorm.frozen else {}
        return {name: value for name, value in asdict(self).items() if name != "batch_norm"} | later


OF_ADAPTERS = (Criterion.activation, Criterion.ablation)
OF_CHANNELS = (Criterion.group_magnitude, Criterion.group_taylor)
WITHOUT_DATA = (Criterion.magnitude, Criterion.group_magnitude, Criterion.random)


@dataclass(frozen=True)
class Score(Checked, group="score"):
    """How important every unit is (docs/methods.md, section 2).

    Args:
        unit: what is scored as one.
        criterion: the estimate; `ablation` measures what the others estimate. Channels and blocks have
            neither `ablation` nor `activation`, and channels alone have `group_magnitude` and `group_taylor`.
        reduction: how Taylor terms of several batches are reduced; `taylor` only.
        of: the parameters that a Taylor term sums over; `gate` exists for every method.
        view: what the importance of a head is read from; `unit: head` and `taylor` only.
        batches: calibration batches; null takes the whole training split once.
        batch_size: images a calibration batch.
    """

    unit: Unit
    criterion: Criterion
    reduction: Reduction
    of: ScoreOf
    view: View
    batches: Count | None
    batch_size: Count

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.view is not View.adapter and (self.unit, self.criterion) != (Unit.head, Criterion.taylor):
            raise ConfigError(
                f"score.view = {self.view.value} is a view of attention heads by their Taylor importance; "
                "it needs score.unit=head score.criterion=taylor"
            )
        if self.criterion in OF_ADAPTERS and self.unit in (Unit.channel, Unit.block):
            also = "group_taylor, group_magnitude, " if self.unit is Unit.channel else ""
            raise ConfigError(
                f"score.criterion = {self.criterion.value} is of adapters; with score.unit={self.unit.value} "
                f"use taylor, magnitude, gradient, fisher, {also}or random"
            )
        if self.criterion in OF_CHANNELS and self.unit is not Unit.channel:
            raise ConfigError(
                f"score.criterion = {self.criterion.value} is of channels: it needs score.unit=channel; "
                f"use the preset score={self.criterion.value}"
            )


@dataclass(frozen=True)
class Prune(Checked, group="prune"):
    """How many units go, and within what they compete (docs/methods.md, section 3).

    Args:
        ratio: the share of units, or of their parameters, to prune.
        by: whether `ratio` counts units or parameters.
        scope: rank all units together, or per slot, or per block.
        effect: what is switched off at a pruned attention head; heads only.
        steps: rounds in which `ratio` is reached, evenly: each scores what is left, prunes and adapts for its
            share of the epochs; channels only.
        round_to: every layer keeps a multiple of so many channels, the nearest one; attention heads are not
            rounded; channels only.
    """

    ratio: Annotated[float, Range(0, 1, below=True, about="the share of units to prune")]
    by: PruneBy
    scope: Scope
    effect: Effect
    steps: Annotated[int, Range(1, 100)]
    round_to: Rank


@dataclass(frozen=True)
class Share(Checked, group="share"):
    """Which kept adapter serves at a pruned site."""

    rule: ShareRule


@dataclass(frozen=True)
class Knowledge(Checked, group="knowledge"):
    """What is kept of the pruned adapters (docs/methods.md, section 4).

    Args:
        kind: the form in which it is kept.
        rank: of `lowrank`; `preservable.check` compares it with the method's.
        beta: the weight of the kept knowledge, dimensionless.
        learn_beta: train one beta a site, starting from `beta`.
    """

    kind: KnowledgeKind
    rank: Rank
    beta: Annotated[float, Range(-10_000, 10_000)]
    learn_beta: bool


@dataclass(frozen=True)
class Optim(Checked, group="optim"):
    """AdamW with a warm-up and a cosine.

    Args:
        epochs: of dense training (`per_phase`), or of both phases together (`continued`).
        adapt_epochs: of the adaptation after sharing (`per_phase`).
        schedule: a whole schedule for each phase, or one over both.
        prune_at: the share of `epochs` after which dense training stops (`continued`).
        lr: peak learning rate.
        start_lr, final_lr: learning rate of the first warm-up step and of the last step.
        weight_decay: decoupled.
        batch_size: images a step on the device.
        accumulate: steps whose gradients are averaged before an update.
        warmup: the share of the schedule's updates that warm up.
        clip: the largest gradient norm; null does not clip.
        label_smoothing: of the labels in the loss.
        mixup: α of the Beta distribution that images are mixed by; 0 mixes none.
        optimizer_state: keep AdamW's state of the kept adapters across pruning, or start afresh.
        shared_grad: whether a shared adapter gets the sum or the mean over its sites.
    """

    epochs: Epochs
    adapt_epochs: Annotated[int, Range(0, 1_000_000)]
    schedule: Schedule
    prune_at: Fraction
    lr: Scale
    start_lr: Factor
    final_lr: Factor
    weight_decay: Factor
    batch_size: Count
    accumulate: Count
    warmup: Annotated[float, Range(0, 1, below=True, about="a share of the schedule")]
    clip: Annotated[float, Range(0, 1e9, above=True)] | None
    label_smoothing: Probability
    mixup: Factor
    optimizer_state: OptimizerState
    shared_grad: SharedGrad

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule is Schedule.continued:
            require(
                0 < self.dense_epochs < self.epochs,
                "optim.prune_at",
                self.prune_at,
                f"of {self.epochs} epochs it leaves {self.dense_epochs} before pruning; both phases need one",
            )

    @property
    def dense_epochs(self) -> int:
        """Epochs of dense training."""
        if self.schedule is Schedule.continued:
            return int(self.epochs * self.prune_at + 0.5)
        return self.epochs

    @property
    def shared_epochs(self) -> int:
        """Epochs of the adaptation after sharing."""
        return self.epochs - self.dense_epochs if self.schedule is Schedule.continued else self.adapt_epochs


DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]+)?")


@dataclass(frozen=True)
class Runtime(Checked, group="runtime"):
    """Where and how fast; nothing here but `precision` enters a key.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`; whether it is there is known when it is used.
        precision: of the forward pass; adapters and optimizer stay in float32.
        threads: CPU threads; null takes torch's own choice.
        workers: processes that decode ahead where decoded images are not kept (`dataset.cache=none`);
            0 takes threads.
        store: folder of the artifacts; a relative one counts from where pear was started.
        processes: that train together; null: as many as `accelerate launch` has started, or 1.
        tracker: who else is told the metrics of every epoch.
    """

    device: str
    precision: Precision
    threads: Annotated[int, Range(1, 1024)] | None
    workers: Annotated[int, Range(0, 256)]
    store: str
    processes: Annotated[int, Range(1, 256)] | None
    tracker: Tracker

    def __post_init__(self) -> None:
        super().__post_init__()
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(
                f'runtime.device = "{self.device}" is unknown; use auto, cpu, cuda, cuda:N or mps'
            )
