"""Training and evaluation loops; they write no files."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.config.choices import Augment, SharedGrad
from pear_cli.config.settings import Optim
from pear_cli.data.augment import Mixup, augmentation
from pear_cli.errors import TrainingError
from pear_cli.system.team import Part, Team
from pear_cli.training.batches import Batches
from pear_cli.training.devices import Device as Device
from pear_cli.training.devices import device as device
from pear_cli.training.dropout import Noise

Measured = Callable[[], dict[str, float]]
Watch = Callable[[int, Measured], None]
"""Told after every update or batch: how many images were seen, and what they came to, if asked."""


def unwatched(seen: int, measured: Measured) -> None:
    """The watch that does nothing."""


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
    training that resumes at any epoch continues bit for bit as if it had never stopped.

    Several processes share every batch. Their gradients are summed once an update, weighted by images: that
    is the gradient of the whole batch, so the number of processes changes nothing but the order of sums.
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
    team: Team = field(default_factory=Team)

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
        self.noise = Noise(self.model) if self.team.size > 1 else None

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
        self.model.train()
        shuffle = torch.Generator().manual_seed(self._of("order", epoch))
        order = torch.randperm(len(self.train), generator=shuffle)
        indices = torch.split(order, self.optim.batch_size)
        parts = [self.team.part(len(index)) for index in indices]
        batches = zip(parts, self._batches(indices, parts, epoch), strict=True)
        mix = Mixup(self.optim.mixup, self._of("mixup", epoch))
        sums = torch.zeros(2, device=self.where.device)  # of losses, hits
        lr, seen, own = 0.0, 0, 0

        def measured() -> dict[str, float]:
            loss, hits = sums.tolist()
            return {"train_loss": loss / max(own, 1), "train_accuracy": hits / max(own, 1)}

        for update in range(self.updates_per_epoch):
            lr = self.schedule.lr(epoch * self.updates_per_epoch + update)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            taken = parts[update * self.optim.accumulate : (update + 1) * self.optim.accumulate]
            images, failure = sum(part.whole for part in taken), None
            try:
                for _ in taken:
                    part, (x, y) = next(batches)
                    sums += self._backward(part, x, y, mix, images, f"epoch {epoch + 1}, update {update + 1}")
            except Exception as error:
                failure = error
            self.team.add_gradients(list(self.trained.values()), failure)
            self._step()
            seen, own = seen + images, own + sum(part.counted for part in taken)
            watch(seen, measured)
        self.team.add(sums)
        own = len(order)
        return {**measured(), "lr": lr}

    def _batches(
        self, indices: Sequence[Tensor], parts: Sequence[Part], epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels that this process needs of each batch, augmented."""
        if self.optim.mixup:
            parts = [part if part.is_whole else part.with_counterparts() for part in parts]
        change = augmentation(self.augment, self._of("augment", epoch))
        return self.train.each(
            [index[part.places] for index, part in zip(indices, parts, strict=True)],
            None if change is None else lambda number, pixels: change(pixels, parts[number]),
        )

    def _backward(self, part: Part, x: Tensor, y: Tensor, mix: Mixup, images: int, when: str) -> Tensor:
        """Add to the gradients what a batch contributes to an update.

        Args:
            part: what this process has of the batch.
            x, y: images and labels of that part, and of its counterparts where they are elsewhere.
            mix: mixes them.
            images: of the whole update.
            when: for messages.

        Returns:
            Sum of the losses, and hits, (2,).

        Raises:
            TrainingError: a loss that is not finite.
        """
        count = len(part.places)
        other, also = x[count:], y[count:]
        if len(x) == count:
            other, also = (x.flip(0), y.flip(0)) if self.optim.mixup else (x, y)
        (x, weight), y = mix(x[:count], other), y[:count]
        if self.noise is not None:
            self.noise.part = part
        with self.where.autocast():
            logits = self.model(x)
            loss = self._loss(logits.float(), y, also, weight)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} in {when}: training stops, and the last whole epoch is kept. "
                f"Try a lower optim.lr than {self.optim.lr}"
            )
        self.scaler.scale(loss * (part.counted / images)).backward()  # type: ignore[no-untyped-call]
        hits = (logits.argmax(-1) == y).float().sum() * (part.counted > 0)
        return torch.stack([loss.detach() * part.counted, hits])

    def _loss(self, logits: Tensor, y: Tensor, other: Tensor, weight: float) -> Tensor:
        """Cross-entropy with the labels, and with those of the images that were mixed in."""
        smoothing = self.optim.label_smoothing
        loss = F.cross_entropy(logits, y, label_smoothing=smoothing)
        if weight == 1:
            return loss
        return weight * loss + (1 - weight) * F.cross_entropy(logits, other, label_smoothing=smoothing)

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


def updates_per_epoch(images: int, optim: Optim) -> int:
    """Optimizer updates an epoch; the last one may see fewer images."""
    return math.ceil(math.ceil(images / optim.batch_size) / optim.accumulate)


def _fused(where: Device) -> bool:
    return where.device.type in ("cpu", "cuda")


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """A seed of its own for each purpose, so that no two random streams of an experiment coincide."""
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
