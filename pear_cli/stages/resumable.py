"""Training so far, in a file that a killed run resumes from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pear_cli.errors import StoreError
from pear_cli.model import models
from pear_cli.system import progress
from pear_cli.training.engine import Trainer


@dataclass
class Resumable:
    """The training so far, written after every epoch; a killed run resumes from there.

    Args:
        path: the file; it is replaced as a whole.
    """

    path: Path
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    selected: int = -1
    resumed_at: int = 0

    def resume(self, model: nn.Module, trainer: Trainer) -> None:
        """Take up the file's state where there is a whole one."""
        try:
            with safe_open(self.path, "pt") as file:
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                texts = file.metadata()
            if texts["sha256"] != _sha256(texts["progress"], stored):
                raise ValueError("it was altered")
            about = json.loads(texts["progress"])
        except FileNotFoundError:
            return
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            progress.say(f"{self.path} is damaged; training starts again from its first epoch")
            return
        now = {name.removeprefix("now/"): t for name, t in stored.items() if name.startswith("now/")}
        self.best = {name.removeprefix("best/"): t for name, t in stored.items() if name.startswith("best/")}
        self.history, self.selected = about["history"], about["selected"]
        self.resumed_at = len(self.history)
        put(model, trainer, now)
        progress.say(f"resuming after epoch {self.resumed_at}")

    def add(self, record: dict[str, float], model: nn.Module, trainer: Trainer, held_out: str) -> None:
        """Note an epoch, and keep its weights if they are the best so far; earlier epochs win ties."""
        self.history.append(record)
        score = f"{held_out}_accuracy"
        now = take(model, trainer)
        if not held_out or self.selected < 0 or record[score] > self.history[self.selected][score]:
            self.selected = len(self.history) - 1
            self.best = {name: tensor.clone() for name, tensor in now.items()} if held_out else {}
        self._write(now)

    @contextmanager
    def told(self, name: str, epochs: int) -> Iterator[None]:
        """Let an interruption of the block say how many epochs of which training are kept."""
        try:
            yield
        except KeyboardInterrupt as stop:
            if self.history:
                stop.add_note(f"{name} up to epoch {len(self.history)} of {epochs}")
            raise

    def _write(self, now: Mapping[str, Tensor]) -> None:
        stored = {f"now/{name}": t for name, t in now.items()}
        stored |= {f"best/{name}": t for name, t in self.best.items()}
        about = json.dumps({"history": self.history, "selected": self.selected})
        new = self.path.with_suffix(".new")
        try:
            save_file(stored, new, {"progress": about, "sha256": _sha256(about, stored)})
            os.replace(new, self.path)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error).removeprefix("Error while serializing: ")
            raise StoreError(f"cannot write {self.path.parent}: {reason}; free some space") from None

    def choose(self, model: nn.Module, trainer: Trainer) -> int:
        """Give the model the weights of the selected epoch; return its index."""
        if self.best:
            put(model, trainer, self.best)
        return self.selected


def take(model: nn.Module, trainer: Trainer) -> dict[str, Tensor]:
    """Weights and optimizer state, by name; AdamW's have `::` in theirs."""
    return models.tensors(model) | {name: t.cpu().contiguous() for name, t in trainer.state().items()}


def put(model: nn.Module, trainer: Trainer, stored: Mapping[str, Tensor]) -> None:
    """Give the model and the trainer what was taken from them."""
    models.load_tensors(model, {name: t for name, t in stored.items() if "::" not in name})
    trainer.restore({name: t for name, t in stored.items() if "::" in name})


def _sha256(about: str, tensors: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
