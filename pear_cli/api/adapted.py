"""Attach adapters to a timm model, score, prune, share and save them, in a training loop of one's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.method import Method
from pear_cli.api.keywords import calibration, method_of, settings_of, sharing
from pear_cli.config.choices import Unit
from pear_cli.config.settings import Prune, Score
from pear_cli.errors import ConfigError
from pear_cli.export import writing
from pear_cli.model import attach as attaching
from pear_cli.model import costs, models, record
from pear_cli.model import merge as merging
from pear_cli.model import prune as pruning
from pear_cli.model import score as scoring
from pear_cli.model.optimizer import follow, state_of
from pear_cli.model.preprocessing import Preprocessing
from pear_cli.model.rebuild import WRAPPERS
from pear_cli.pruning.decide import decide
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.units import units_at_work
from pear_cli.training.devices import Device


def attach(
    model: nn.Module,
    method: str | Method,
    *,
    seed: int = 0,
    train_head: bool = True,
    create_args: Mapping[str, Any] = {},
    preprocessing: Preprocessing | None = None,
    **settings: Any,
) -> "Adapted":
    """Freeze a timm model, and attach small trainable adapters to it, in place.

        model = timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=10)
        adapted = pear_cli.attach(model, "lora", rank=4)
        optimizer = torch.optim.AdamW(adapted.parameters(), lr=5e-3)

    The model stays the object that it was, in its mode and on its device; adapters work through hooks. Its
    classifier is trained as it is. BatchNorms keep their statistics, also in `model.train()`.

    Args:
        model: a timm model with a classifier, in float32.
        method: the name of a preset, such as `lora`, `adaptformer`, `lily`, or a method object.
        seed: of the adapters' initial values.
        train_head: train the classifier too.
        create_args: arguments that `timm.create_model` was given, such as `img_size`, so that `load` can make
            the model again.
        preprocessing: of the images that it is trained on; by default timm's evaluation transform.
        settings: of the method, such as `rank`; the others are the preset's.

    Returns:
        The handle of the adapted model.

    Raises:
        ConfigError: an unknown method or setting, or a model that cannot be adapted.
        TrainingError: a module to adapt that the model never calls.
    """
    built = method_of(method, settings)
    attaching.attach(
        model,
        built,
        seed=seed,
        train_head=train_head,
        create_args=create_args,
        preprocessing=preprocessing,
    )
    return Adapted(model)


def adapted(model: nn.Module) -> "Adapted":
    """The handle of a model that has adapters, also of one that is compiled or wrapped.

    Args:
        model: what `attach` or `load` adapted, or torch.compile's, DDP's or Accelerate's wrapper of it.

    Raises:
        TypeError: a model without adapters.
    """
    inner: Any = model
    while not isinstance(getattr(inner, "_modules", {}).get("adaptation"), Adaptation):
        inside = [inner._modules[name] for name in WRAPPERS if name in getattr(inner, "_modules", {})]
        if not inside:
            raise TypeError(f"{type(model).__name__} has no adapters: pear_cli.attach attaches them")
        inner = inside[0]
    return Adapted(inner, wrapper=None if inner is model else type(model).__name__)


class Adapted:
    """The handle of an adapted model; all state is the model's own.

    Attributes:
        model: the adapted timm model.
    """

    def __init__(self, model: nn.Module, wrapper: str | None = None) -> None:
        self.model = model
        self._wrapper = wrapper

    @property
    def method(self) -> Method:
        """What is attached."""
        return models.adaptation(self.model).method

    @property
    def share_map(self) -> ShareMap | None:
        """Which adapter serves at each site; None before adapters were pruned."""
        return self._record.share_map

    @property
    def transform(self) -> Preprocessing:
        """From a PIL image to an input of the model, (3, H, W), exactly as its images are prepared.

        It turns photos upright as their EXIF data say, and reads every mode that `pear predict` reads.
        """
        return Preprocessing.described(self._record.description, self.model)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, each tensor once: adapters, the classifier, and what the method names."""
        return list(models.trained(self.model).values())

    def score(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
        seed: int = 0,
        **score: Any,
    ) -> Importance:
        """How important every unit is, measured without changing the model.

        Args:
            batches: of training images (B, 3, H, W) and labels (B,), on any device; they are read several
                times, and an iterator, which cannot be, is kept in memory. The order should stay the same.
            loss: of logits and labels, the mean of a batch.
            seed: of the criterion `random`.
            score: settings as in conf/score, such as `criterion="fisher"` or `unit="head"`; how many batches
                there are, and how large, is the caller's choice.

        Raises:
            ConfigError: an unknown setting, or units that the method lacks.
            DataError: no batches, or what is no batch.
            TrainingError: a score that is not finite.
        """
        if "batch_size" in score:
            raise ConfigError("score.batch_size is not set here: the batches have their own")
        config = settings_of("score", Score, {**score, "batches": None})
        device = next(self.model.parameters()).device
        where = Device(device, torch.float32)
        read = calibration(batches, device)
        return scoring.score(self.model, read, config, where, seed, loss)

    def prune(
        self,
        importance: Importance,
        ratio: float,
        *,
        share: str = "ranked",
        knowledge: str | Mapping[str, Any] = "frozen",
        optimizer: Optimizer | None = None,
        **prune: Any,
    ) -> ShareMap | Mask:
        """Prune the least important units, in place, and let the important adapters serve in their place.

        Args:
            importance: what `score` found, of this model.
            ratio: the share of units to prune, in [0, 1).
            share: who serves at the sites of pruned adapters: none, top, ranked, nearest or similar.
            knowledge: what is kept of pruned adapters: none, frozen, int8, lowrank or absorb; or settings as
                in conf/knowledge, such as `{"kind": "frozen", "beta": 0.5}`. Other units than adapters have
                neither `share` nor `knowledge`.
            optimizer: its parameter groups lose what is pruned, and keep the state of what stays.
            prune: further settings as in conf/prune, such as `scope="slot"`.

        Returns:
            The share map of adapters; the mask of other units.

        Raises:
            ConfigError: unknown settings, scores of another model, a model that was pruned already, or one
                that is compiled or wrapped. Nothing is changed then.
        """
        if self._wrapper is not None:
            raise ConfigError(
                f"the model is wrapped in {self._wrapper}, which would not see what is pruned: unwrap it, "
                "prune, and wrap it again"
            )
        pruned = self._record
        if pruned.share_map is not None or pruned.description.mask or pruned.description.widths:
            raise ConfigError("the model is pruned already; prune it once, by the whole ratio")
        unit = importance.unit
        settings = settings_of("prune", Prune, {**prune, "ratio": ratio})
        rule, kept = sharing(unit, share, knowledge)
        self._check_scored(importance)
        decision = decide(importance, unit, settings, rule)
        before = models.trained(self.model)
        state = {} if optimizer is None else state_of(optimizer, before)
        if pruned.bare is not None and isinstance(decision, Mask):
            pruned.bare.remember(record.cleared(models.adaptation(self.model), decision))
        with pruned.recording(self.model):
            done = pruning.apply(self.model, pruned.description, decision, importance, kept, state)
        pruned.description, pruned.kept = done.description, done.kept
        pruned.importance = importance
        pruned.share_map = decision if isinstance(decision, ShareMap) else None
        if optimizer is not None:
            follow(optimizer, before, models.trained(self.model), state, done.state)
        return decision

    def save(
        self, path: str | Path, *, classes: Sequence[str] | None = None, overwrite: bool = False
    ) -> Path:
        """Write all but the frozen backbone into one file, the one that `pear export` makes.

        Args:
            path: it ends in `.safetensors`.
            classes: label names in logit order; a loaded model has its own.
            overwrite: replace a file that is there.

        Raises:
            ConfigError: a file that is there already, or other than one name a class.
            StoreError: it cannot be written.
        """
        now = self._record
        names, count = classes or now.description.classes, attaching.classifier_width(self.model)
        if classes is None and not now.named:
            raise ConfigError("save(…, classes=…): name the classes, in the order of the logits")
        if isinstance(classes, str) or len(names) != count:
            raise ConfigError(f"classes = {classes!r}: give one name for each of the {count} logits")
        description = replace(now.description, classes=tuple(map(str, names)))
        out = Path(path)
        return writing.save(self.model, description, now.kept, out, now.importance, force=overwrite)

    def costs(self) -> costs.Costs:
        """What the task costs beside its frozen backbone."""
        return costs.of_task(self.model, self._record.kept, self._record.description.size)

    def merge(self) -> nn.Module:
        """A copy of the model as plain timm: its weights hold the updates of the adapters.

        Raises:
            ConfigError: updates that no weight can hold.
            MergeError: the merged model gives other logits.
        """
        return merging.checked(self.model)

    def remove(self) -> nn.Module:
        """Take adapters and hooks away, in place: the same object, bare again, bit for bit.

        Raises:
            ConfigError: a model that `load` made with its adapters.
        """
        attaching.remove(self.model)
        return self.model

    @property
    def _record(self) -> record.Record:
        return record.record(self.model)

    def _check_scored(self, importance: Importance) -> None:
        """Refuse scores of another model; of channels and blocks, pruning itself finds it."""
        if importance.unit in (Unit.channel, Unit.block):
            return
        here = {u.unit.name for u in units_at_work(models.adaptation(self.model), importance.unit)}
        scored = set(importance.by_name())
        if scored != here:
            raise ConfigError(
                f"these scores are of another model: {min(scored ^ here)} is in one and not in the other; "
                "score this model"
            )
