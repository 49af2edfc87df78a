"""Training and evaluation loops; they write no files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.batches import Batches
from pear_cli.choices import Augment, Precision, SharedGrad
from pear_cli.data.augment import Mixup, augmentation
from pear_cli.errors import ConfigError, TrainingError
from pear_cli.nodes import Optim, Runtime

Measured = Callable[[], dict[str, float]]
Watch = Callable[[int, Measured], None]
"""Told after every update or batch: how many images were seen, and what they came to, if asked."""


def unwatched(seen: int, measured: Measured) -> None:
    """The watch that does nothing."""


@dataclass(frozen=True)
class Device:
    """Where computation runs, and in which precision the forward pass."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)


def device(runtime: Runtime) -> Device:
    """The device and precision that `runtime` asks for.

    `auto` precision is float32 on a CPU, and bfloat16 on a GPU that has it.

    Raises:
        ConfigError: a device that is not there.
    """
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        where = torch.device(name)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"runtime.device = {name} is not available: {line}") from None
    fast = where.type == "cuda" and torch.cuda.is_bf16_supported()
    dtypes = {
        Precision.auto: torch.bfloat16 if fast else torch.float32,
        Precision.float32: torch.float32,
        Precision.bf16: torch.bfloat16,
        Precision.float16: torch.float16,
    }
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    return Device(where, dtypes[runtime.precision])


@dataclass(frozen=True)
class Schedule:
    """Learning rate by update: linear warm-up, then a cosine.

    Args:
        updates: length of the whole schedule.
        first: updates that are already done when training starts.
    """

    optim: Optim
    updates: int
    first: int = 0

    def lr(self, update: int) -> float:
        """The learning rate of the `update`-th update of this phase."""
        o, step = self.optim, update + self.first
        warm = int(o.warmup * self.updates)
        if step < warm:
            return o.start_lr + (o.lr - o.start_lr) * step / warm
        done = (step - warm) / max(1, self.updates - warm)
        return o.final_lr + (o.lr - o.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass
class Trainer:
    """One phase of training, epoch by epoch.

    The order of the data, its augmentation and the dropout masks of an epoch depend on (seed, epoch) alone:
    training that starts again at any epoch goes on bit for bit as if it had never stopped.
    """

    model: nn.Module
    trained: Mapping[str, nn.Parameter]
    train: Batches
    optim: Optim
    schedule: Schedule
    where: Device
    seed: int
    phase: str
    served: Mapping[str, int]
    augment: Augment = Augment.none

    def __post_init__(self) -> None:
        decayed = [p for p in self.trained.values() if p.ndim > 1]
        plain = [p for p in self.trained.values() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.optim.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=self.optim.lr, fused=_fused(self.where)
        )
        self.scaler = torch.amp.GradScaler(self.where.device.type, enabled=self.where.dtype is torch.float16)

    @property
    def updates_per_epoch(self) -> int:
        return updates_per_epoch(len(self.train), self.optim)

    def epoch(self, epoch: int, watch: Watch = unwatched) -> dict[str, float]:
        """Train one epoch; return its mean loss and accuracy, and the last learning rate.

        Args:
            epoch: its number, from 0.
            watch: told after every update; it does nothing to the result.

        Raises:
            TrainingError: a loss that is not finite; parameters are left as the last good update made them.
        """
        torch.manual_seed(self._of("noise", epoch))
        train_mode(self.model)
        shuffle = torch.Generator().manual_seed(self._of("order", epoch))
        order = torch.randperm(len(self.train), generator=shuffle)
        indices = torch.split(order, self.optim.batch_size)
        batches = self.train.each(indices, augmentation(self.augment, self._of("augment", epoch)))
        mix = Mixup(self.optim.mixup, self._of("mixup", epoch))
        loss_sum, hits = torch.zeros((), device=self.where.device), torch.zeros((), device=self.where.device)
        lr, seen = 0.0, 0

        def measured() -> dict[str, float]:
            return {"train_loss": loss_sum.item() / seen, "train_accuracy": hits.item() / seen}

        for update in range(self.updates_per_epoch):
            lr = self.schedule.lr(epoch * self.updates_per_epoch + update)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            part = indices[update * self.optim.accumulate : (update + 1) * self.optim.accumulate]
            images = sum(len(index) for index in part)
            for _ in part:
                x, y = next(batches)
                x, weight = mix(x)
                with self.where.autocast():
                    logits = self.model(x)
                    loss = self._loss(logits.float(), y, weight)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss.item()} in epoch {epoch + 1}, update {update + 1}: training "
                        f"stops, and the last whole epoch is kept. Try a lower optim.lr than {self.optim.lr}"
                    )
                self.scaler.scale(loss * (len(y) / images)).backward()  # type: ignore[no-untyped-call]
                loss_sum += loss.detach() * len(y)
                hits += (logits.argmax(-1) == y).sum()
            self._step()
            seen += images
            watch(seen, measured)
        return {**measured(), "lr": lr}

    def _loss(self, logits: Tensor, y: Tensor, weight: float) -> Tensor:
        """Cross-entropy with the labels, and with those of the images that were mixed in."""
        smoothing = self.optim.label_smoothing
        loss = F.cross_entropy(logits, y, label_smoothing=smoothing)
        if weight == 1:
            return loss
        return weight * loss + (1 - weight) * F.cross_entropy(logits, y.flip(0), label_smoothing=smoothing)

    def _of(self, purpose: str, epoch: int) -> int:
        """The seed of one purpose in one epoch of this phase."""
        return derive(self.seed, f"{self.phase} {purpose}", epoch)

    def _step(self) -> None:
        """One update of the trained parameters from their gradients."""
        self.scaler.unscale_(self.optimizer)
        if self.optim.shared_grad is SharedGrad.mean:
            for name, parameter in self.trained.items():
                sites = self.served.get(name.rpartition(".")[0], 1)
                if sites > 1 and parameter.grad is not None:
                    parameter.grad /= sites
        if self.optim.clip is not None:
            nn.utils.clip_grad_norm_(self.trained.values(), self.optim.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """AdamW's state by parameter name: `<parameter>::exp_avg`, `::exp_avg_sq`, `::step`."""
        return {
            f"{name}::{key}": value.detach().clone()
            for name, parameter in self.trained.items()
            for key, value in self.optimizer.state[parameter].items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up AdamW's state where `state` has it; other parameters start afresh."""
        for name, parameter in self.trained.items():
            known = {
                key.rpartition("::")[2]: v for key, v in state.items() if key.rpartition("::")[0] == name
            }
            if known:
                where = {k: v.to(parameter.device).clone() for k, v in known.items()}
                self.optimizer.state[parameter] = where | {"step": known["step"].clone()}


def train_mode(model: nn.Module) -> None:
    """Let a model train: dropout and drop-path are on; the statistics of BatchNorm stay the backbone's."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def updates_per_epoch(images: int, optim: Optim) -> int:
    """Optimizer updates an epoch; the last one may see fewer images."""
    return math.ceil(math.ceil(images / optim.batch_size) / optim.accumulate)


def _fused(where: Device) -> bool:
    return where.device.type in ("cpu", "cuda")


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A seed of its own for each purpose, so that no two random streams of an experiment coincide."""
    import hashlib

    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class Evaluation:
    """What a model says of a split: logits (N, K) float32 on the CPU, labels (N,), mean loss, accuracy."""

    logits: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        return (self.logits.argmax(-1) == self.labels).double().mean().item()

    @property
    def mean_per_class_accuracy(self) -> float:
        """Recall averaged over the classes that occur."""
        hits = (self.logits.argmax(-1) == self.labels).double()
        classes = torch.unique(self.labels)
        return torch.stack([hits[self.labels == c].mean() for c in classes]).mean().item()

    @property
    def loss(self) -> float:
        return F.cross_entropy(self.logits, self.labels).item()


@torch.inference_mode()
def evaluate(
    model: nn.Module, split: Batches, where: Device, batch_size: int = 256, watch: Watch = unwatched
) -> Evaluation:
    """Run `model` in eval mode over a split, in order; `watch` is told after every batch."""
    model.eval()
    logits: list[Tensor] = []
    seen, hits = 0, torch.zeros((), dtype=torch.int64, device=where.device)

    def measured() -> dict[str, float]:
        return {"accuracy": hits.item() / seen}

    for x, y in split.in_order(batch_size):
        with where.autocast():
            found = model(x).float()
        logits.append(found.cpu())
        hits += (found.argmax(-1) == y).sum()
        seen += len(y)
        watch(seen, measured)
    return Evaluation(torch.cat(logits), split.labels.cpu())
