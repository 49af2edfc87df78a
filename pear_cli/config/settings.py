"""The settings of an experiment: frozen dataclasses, each validated once."""

from dataclasses import asdict, dataclass
from typing import Any

from pear_cli.config.choices import (
    BatchNorm,
    Criterion,
    Effect,
    KnowledgeKind,
    OptimizerState,
    PruneBy,
    Reduction,
    Schedule,
    Scope,
    ScoreOf,
    SharedGrad,
    ShareRule,
    Unit,
    View,
)
from pear_cli.errors import ConfigError


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raise ConfigError unless `condition`: `key = value is out of range: rule`."""
    if not condition:
        raise ConfigError(f"{key} = {value} is out of range: {rule}")


FETCHING = ("pretrained", "checkpoint", "cache_dir", "hf", "file", "url")
"""Starts of timm arguments that read files or fetch them."""


@dataclass(frozen=True)
class Backbone:
    """The frozen network that adapters attach to.

    Args:
        name: a timm architecture, as `timm.list_models()` has it.
        pretrained: take timm's pretrained weights of that name.
        weights: a file: safetensors, a state_dict that torch saved (.pth, .bin, …), or .npz of the original
            ViTs; or `pear_mini`, which comes with the package.
        seed: of random weights, when neither of the two is asked for.
        drop_path: stochastic depth rate while training, in [0, 1).
        mean, std: channel statistics that `dataset.normalization=backbone` uses, in [0, 1] pixel units;
            null takes those that timm states for the model.
        args: further arguments of `timm.create_model`, such as `img_size`, `depth`, `embed_dim`.
        batch_norm: whether the running statistics of BatchNorms stay, or follow the batches of training.
    """

    name: str
    pretrained: bool
    weights: str | None
    seed: int
    drop_path: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    args: dict[str, Any]
    batch_norm: BatchNorm = BatchNorm.frozen

    def __post_init__(self) -> None:
        require(0 <= self.drop_path < 1, "backbone.drop_path", self.drop_path, "0 <= drop_path < 1")
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
            require(
                value is None or len(value) == 3, f"backbone.{key}", value, "three numbers, one a channel"
            )
        require(self.std is None or min(self.std) > 0, "backbone.std", self.std, "three numbers above 0")
        if (self.mean is None) != (self.std is None):
            raise ConfigError("backbone.mean and backbone.std go together; set both, or neither")

    def to_json(self) -> dict[str, Any]:
        """The settings by name; without `batch_norm` where it is frozen: older keys and models have none."""
        later = {"batch_norm": self.batch_norm.value} if self.batch_norm is not BatchNorm.frozen else {}
        return {name: value for name, value in asdict(self).items() if name != "batch_norm"} | later


OF_ADAPTERS = (Criterion.activation, Criterion.ablation)
OF_CHANNELS = (Criterion.group_magnitude, Criterion.group_taylor)


@dataclass(frozen=True)
class Score:
    """How important every unit is (docs/methods.md, section 2).

    Args:
        unit: what is scored as one.
        criterion: the estimate; `ablation` measures what the others estimate. Channels and blocks have
            neither `ablation` nor `activation`, and channels alone have `group_magnitude` and `group_taylor`.
        reduction: how Taylor terms of several batches are reduced; `taylor` only.
        of: the parameters that a Taylor term sums over; `gate` exists for every method.
        view: what the importance of a head is read from; `unit: head` and `taylor` only.
        batches: calibration batches, at least 1; null takes the whole training split once.
        batch_size: images a calibration batch, at least 1.
    """

    unit: Unit
    criterion: Criterion
    reduction: Reduction
    of: ScoreOf
    view: View
    batches: int | None
    batch_size: int

    def __post_init__(self) -> None:
        batches = 1 if self.batches is None else self.batches
        require(batches >= 1, "score.batches", self.batches, "at least 1, or null")
        require(self.batch_size >= 1, "score.batch_size", self.batch_size, "at least 1")
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
class Prune:
    """How many units go, and within what they compete (docs/methods.md, section 3).

    Args:
        ratio: the share of units, or of their parameters, to prune, in [0, 1).
        by: whether `ratio` counts units or parameters.
        scope: rank all units together, or per slot, or per block.
        effect: what is switched off at a pruned attention head; heads only.
        steps: rounds in which `ratio` is reached, evenly: each scores what is left, prunes and adapts for its
            share of the epochs. At least 1; channels only.
        round_to: every layer keeps a multiple of so many channels, the nearest one; attention heads are not
            rounded. At least 1; channels only.
    """

    ratio: float
    by: PruneBy
    scope: Scope
    effect: Effect
    steps: int
    round_to: int

    def __post_init__(self) -> None:
        require(self.steps >= 1, "prune.steps", self.steps, "at least 1")
        require(self.round_to >= 1, "prune.round_to", self.round_to, "at least 1")
        require(
            0 <= self.ratio < 1, "prune.ratio", self.ratio, "0 <= ratio < 1 (the share of units to prune)"
        )


@dataclass(frozen=True)
class Share:
    """Which kept adapter serves at a pruned site."""

    rule: ShareRule


@dataclass(frozen=True)
class Knowledge:
    """What is kept of the pruned adapters (docs/methods.md, section 4).

    Args:
        kind: the form in which it is kept.
        rank: of `lowrank`, 1 to 65536; `knowledge.check` compares it with the method's.
        beta: the weight of the kept knowledge, dimensionless.
        learn_beta: train one beta a site, starting from `beta`.
    """

    kind: KnowledgeKind
    rank: int
    beta: float
    learn_beta: bool

    def __post_init__(self) -> None:
        require(1 <= self.rank <= 65536, "knowledge.rank", self.rank, "1 to 65536")


@dataclass(frozen=True)
class Optim:
    """AdamW with a warm-up and a cosine.

    Args:
        epochs: of dense training (`per_phase`), or of both phases together (`continued`); at least 1.
        adapt_epochs: of the adaptation after sharing (`per_phase`), at least 0.
        schedule: a whole schedule for each phase, or one over both.
        prune_at: the share of `epochs` after which dense training stops (`continued`), in (0, 1).
        lr: peak learning rate, > 0.
        start_lr, final_lr: learning rate of the first warm-up step and of the last step, >= 0.
        weight_decay: decoupled, >= 0.
        batch_size: images a step on the device, at least 1.
        accumulate: steps whose gradients are averaged before an update, at least 1.
        warmup: the share of the schedule's updates that warm up, in [0, 1).
        clip: the largest gradient norm; null does not clip.
        label_smoothing: in [0, 1).
        mixup: α of the Beta distribution that images are mixed by, at least 0; 0 mixes none.
        optimizer_state: keep AdamW's state of the kept adapters across pruning, or start afresh.
        shared_grad: whether a shared adapter gets the sum or the mean over its sites.
    """

    epochs: int
    adapt_epochs: int
    schedule: Schedule
    prune_at: float
    lr: float
    start_lr: float
    final_lr: float
    weight_decay: float
    batch_size: int
    accumulate: int
    warmup: float
    clip: float | None
    label_smoothing: float
    mixup: float
    optimizer_state: OptimizerState
    shared_grad: SharedGrad

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "optim.epochs", self.epochs, "at least 1")
        require(self.adapt_epochs >= 0, "optim.adapt_epochs", self.adapt_epochs, "at least 0")
        require(0 < self.prune_at < 1, "optim.prune_at", self.prune_at, "0 < prune_at < 1")
        require(self.lr > 0, "optim.lr", self.lr, "above 0")
        require(self.start_lr >= 0, "optim.start_lr", self.start_lr, "at least 0")
        require(self.final_lr >= 0, "optim.final_lr", self.final_lr, "at least 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        require(self.batch_size >= 1, "optim.batch_size", self.batch_size, "at least 1")
        require(self.accumulate >= 1, "optim.accumulate", self.accumulate, "at least 1")
        require(
            0 <= self.warmup < 1, "optim.warmup", self.warmup, "0 <= warmup < 1 (a share of the schedule)"
        )
        require(self.clip is None or self.clip > 0, "optim.clip", self.clip, "above 0, or null")
        require(0 <= self.label_smoothing < 1, "optim.label_smoothing", self.label_smoothing, "0 <= x < 1")
        require(self.mixup >= 0, "optim.mixup", self.mixup, "at least 0")
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
