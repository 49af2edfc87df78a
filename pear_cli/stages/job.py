"""What a stage is given, and what it gives back."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from pear_cli.data import loading
from pear_cli.data.dataset import SPOKEN
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.step import Step
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.model.load import ADAPTERS, KNOWLEDGE, MODEL, PROBE
from pear_cli.store.artifact import Artifact
from pear_cli.store.canonical import canonical, plain
from pear_cli.store.draft import Draft
from pear_cli.system import progress
from pear_cli.training import engine
from pear_cli.training.batches import Batches, statistics
from pear_cli.training.devices import Device
from pear_cli.training.trackers import Listener, following


@dataclass(frozen=True)
class Result:
    """What a stage measured; its files are in the draft already."""

    metrics: Mapping[str, object]
    accounting: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Task:
    """What a stage reads, on whatever process of a job.

    Args:
        experiment: the validated root config.
        step: the stage and its key.
        inputs: the artifacts that it reads, by step.
    """

    experiment: Experiment
    step: Step
    inputs: Mapping[str, Artifact]

    @cached_property
    def device(self) -> Device:
        return engine.device(self.experiment.runtime)

    @property
    def is_shared(self) -> bool:
        """Whether it is an adaptation after sharing."""
        return "checkpoint" in self.step.inputs

    @property
    def epochs(self) -> range:
        """The epochs of a training, counted from 0 in its phase."""
        dense = range(self.experiment.dense_epochs)
        return self.experiment.adaptation(self.step.round) if self.is_shared else dense

    def batches(self, split: str, model: nn.Module, description: Description) -> Batches:
        """A split of the dataset on the device, prepared as the model is described."""
        e = self.experiment
        with progress.doing(f"reading {SPOKEN[split]} of {e.dataset.title}"):
            images = loading.load(e.dataset, split, description.preparation, e.runtime.workers)
        return Batches(images, statistics(model, description.normalization), self.device.device)


@dataclass
class Job(Task):
    """One run of one stage.

    Args:
        draft: where its files go.
        make_workspace: makes `workspace`.
        output: folder for what is not part of the artifact; None leaves that out.
    """

    draft: Draft
    make_workspace: Callable[[], Path]
    output: Path | None
    mask_bytes: int = 0

    @cached_property
    def workspace(self) -> Path:
        """A folder that survives a kill; training keeps its last epoch there."""
        return self.make_workspace()

    @property
    def order(self) -> Task:
        """What other processes need to know to take part."""
        return Task(self.experiment, self.step, self.inputs)

    def tracker(self) -> AbstractContextManager[Listener]:
        """The tracker of this stage."""
        name = f"{self.step.name}-{self.step.key[:8]}"
        return following(self.experiment.runtime.tracker, self.output, name, plain(self.step.config))

    def save_model(self, model: nn.Module, description: Description, kept: Mapping[str, Tensor]) -> None:
        """Save what rebuilds `model`: tensors each once, description, and logits that prove it."""
        self.draft.save_json(MODEL, description.to_json())
        masks = (description.widths, description.mask and description.mask.gone)
        self.mask_bytes = sum(len(canonical(mask)) for mask in masks if mask)
        self.draft.save_tensors(ADAPTERS, models.tensors(model))
        if kept:
            self.draft.save_tensors(KNOWLEDGE, kept)
        self.draft.save_tensors(PROBE, {"logits": models.probe(model, description.size)})

    def stored_bytes(self) -> dict[str, int]:
        """Bytes of a task's model: adapters, classifier, knowledge and masks, not the optimizer's state."""
        files = [self.draft.path / f"{name}.safetensors" for name in (ADAPTERS, KNOWLEDGE)]
        sizes = [file.stat().st_size for file in files if file.exists()]
        return {"stored_bytes": sum(sizes) + self.mask_bytes} if sizes else {}
