"""Many tasks on one frozen backbone: adapters, classifiers and classes of each, and batches of several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.hooks import RemovableHandle

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.backbone import backbones
from pear_cli.backbone.changes import Changes
from pear_cli.backbone.sites import heads_reader
from pear_cli.config.choices import BatchNorm, Unit
from pear_cli.errors import ConfigError, near
from pear_cli.export.load import Stored, read
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.model.frozen import frozen_hash
from pear_cli.model.preprocessing import Preprocessing
from pear_cli.model.rebuild import check_backbone, check_bare, restore_adapters
from pear_cli.model.routing import ROUTE, Place, Route, Task, light


class TaskBank:
    """One backbone in memory, and any number of tasks on it; each batch says which.

        bank = pear_cli.TaskBank(backbone, {"birds": "birds.safetensors", "cars": "cars.safetensors"})
        logits = bank(x, "birds")                    # (B, K)
        both = bank(x, ["birds", "cars", "birds"])   # one tensor (K) an image; the backbone runs once

    The tasks are files that `pear export` or `Adapted.save` wrote, or folders of artifacts, of any method
    and rank. A mixed batch gives the logits of each task alone to 1e-5. Threads may use a bank together. The
    backbone is in eval mode; called directly, it gives its own outputs.

    Args:
        backbone: a bare timm model; its classifier does not matter, and stays.
        tasks: paths by name.
        verify: compare the backbone with the one of each task, by a hash and by the logits of a fixed batch.

    Raises:
        ConfigError: no bare model of timm; for others see `add`.
    """

    def __init__(
        self, backbone: nn.Module, tasks: Mapping[str, str | Path] = {}, *, verify: bool = True
    ) -> None:
        check_bare(backbone)
        self.backbone = backbone.eval()
        self._verify = verify
        self._tasks: dict[str, Task] = {}
        self._described: dict[str, tuple[tuple[str, ...], Preprocessing]] = {}
        self._hooked: dict[object, list[RemovableHandle]] = {}
        self._changes = Changes()
        self._frozen = ""
        self._size = models.input_size(backbone)
        for name, path in tasks.items():
            self.add(name, path)

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Any:
        return iter(self._tasks)

    def classes(self, name: str) -> tuple[str, ...]:
        """The label names of a task, in the order of its logits."""
        return self._described[self._known(name)][0]

    def transform(self, name: str) -> Preprocessing:
        """From a PIL image to an input of a task, (3, H, W), exactly as in its training."""
        return self._described[self._known(name)][1]

    def add(self, name: str, path: str | Path) -> None:
        """Add a task; where that fails, the bank stays as it was.

        Args:
            name: of the task in this bank.
            path: a file that `pear export` or `Adapted.save` wrote, or the folder of an artifact.

        Raises:
            ConfigError: a name that is there already, another backbone or input size, or a task that changes
                the backbone: full fine-tuning, BitFit, learned BatchNorms, pruned channels or blocks.
            MissingArtifact, CorruptArtifact, StoreError: nothing there, or nothing sound.
        """
        if name in self._tasks:
            raise ConfigError(f"the bank has a task {name!r} already; remove it first, or take another name")
        stored = read(path)
        description = stored.description
        try:
            self._check(description)
        except ConfigError as error:
            raise ConfigError(f"task {name!r} ({path}): {error.args[0]}", *error.args[1:]) from None
        task = self._made(stored)
        self._hook(task)
        self._tasks[name] = task
        self._described[name] = description.classes, Preprocessing.described(description, self.backbone)
        try:
            if self._verify:
                self._check_logits(name, stored)
        except BaseException:
            self.remove(name)
            raise

    def remove(self, name: str) -> None:
        """Forget a task; without any, the backbone is bare again."""
        del self._tasks[self._known(name)], self._described[name]
        if not self._tasks:
            for handle in (handle for handles in self._hooked.values() for handle in handles):
                handle.remove()
            self._hooked = {}
            self._changes.undo()

    @overload
    def __call__(self, x: Tensor, task: str) -> Tensor: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, x: Tensor, task: Sequence[str]) -> list[Tensor]: ...

    @torch.inference_mode()
    def __call__(self, x: Tensor, task: str | Sequence[str]) -> Tensor | list[Tensor]:
        """Logits of a batch, of one task or of each image's own, in one pass of the backbone.

        Args:
            x: images (B, 3, H, W), each prepared by the `transform` of its task.
            task: the name of one task, or of one an image.

        Returns:
            Logits (B, K); or, of one task an image, a list of B logits (K).

        Raises:
            ConfigError: an unknown task, images of another shape, or another number of names.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, self._size, self._size):
            raise ConfigError(
                f"images of shape {tuple(x.shape)}: the bank takes (B, 3, {self._size}, {self._size})"
            )
        if isinstance(task, str):
            return self._run(x, [(self._tasks[self._known(task)], 0, len(x))])
        names = list(task)
        if len(names) != len(x):
            raise ConfigError(f"{len(names)} tasks for {len(x)} images: name one task, or one an image")
        order = sorted(range(len(names)), key=lambda i: names[i])
        groups, start = [], 0
        for name in sorted(set(names)):
            count = names.count(name)
            groups.append((self._tasks[self._known(name)], start, start + count))
            start += count
        logits = self._run(x[order], groups) if groups else x.new_zeros(0, 1)
        found: dict[int, Tensor] = {}
        for owner, first, last in groups:
            found |= {order[row]: logits[row, : owner.classes] for row in range(first, last)}
        return [found[index] for index in range(len(names))]

    def _run(self, x: Tensor, groups: Sequence[tuple[Task, int, int]]) -> Tensor:
        if not len(x):
            return x.new_zeros(0, max(task.classes for task, _, _ in groups))
        device = next(self.backbone.parameters()).device
        token = ROUTE.set(Route(self, groups, len(x)))
        try:
            logits: Tensor = self.backbone(x.to(device))
        finally:
            ROUTE.reset(token)
        return logits

    def _known(self, name: str) -> str:
        if name not in self._tasks:
            there = ", ".join(self._tasks) or "none"
            raise ConfigError(f"the bank has no task {name!r}{near(name, self._tasks) or ';'} tasks: {there}")
        return name

    def _check(self, description: Description) -> None:
        """Refuse a task that this backbone cannot serve."""
        method = description.built_method()
        if method.adapts("bias"):
            raise ConfigError(
                f"{type(method).__name__} trains the backbone itself, which all tasks of a bank share; "
                "load it alone with pear_cli.load"
            )
        changed = {
            "its channels are pruned": bool(description.widths),
            "blocks of the frozen weights are pruned": description.mask is not None
            and description.mask.unit is Unit.block,
            "its BatchNorms learned": description.backbone.batch_norm is BatchNorm.train,
        }
        for what, so in changed.items():
            if so:
                raise ConfigError(
                    f"{what}: its backbone is not that of the other tasks; load it alone with pear_cli.load"
                )
        if self._verify and description.frozen is not None and not self._frozen:
            self._frozen = frozen_hash(self.backbone, method)
        known = self._frozen if self._verify else description.frozen or ""
        check_backbone(self.backbone, description, method, known)

    def _made(self, stored: Stored) -> Task:
        """A task's tensors on the backbone's device, in the form in which they compute."""
        description, device = stored.description, next(self.backbone.parameters()).device
        with torch.random.fork_rng(devices=[]):
            adapted = Adaptation(self.backbone, description.built_method())
        restore_adapters(adapted, self.backbone, description, stored.kept)
        for handle in adapted.handles:  # of heads that are switched off: here, each task switches its own
            handle.remove()
        own = {f"adapter.{name}": tensor for name, tensor in adapted.tensors().items()}
        heads = {name: tensor for name, tensor in stored.trained.items() if name.startswith("head.")}
        models.assign(own, {name: t for name, t in stored.trained.items() if name not in heads})
        adapted.to(device).requires_grad_(False).eval()
        if own:  # in one piece of memory
            vector_to_parameters(parameters_to_vector(adapted.parameters()), adapted.parameters())
        work = {(host.path, host.reads): light(host) for host in adapted.hosts}
        silent = {name: adapted.silenced(name) for name in adapted.silent}
        return Task(work, silent, self._heads(heads, len(description.classes), device))

    def _heads(
        self, stored: Mapping[str, Tensor], classes: int, device: torch.device
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Weight and bias of each classifier, by its path below `head`."""
        found = {}
        for path in dict.fromkeys(name.rpartition(".")[0] for name in stored):
            weight, bias = stored.get(f"{path}.weight"), stored.get(f"{path}.bias")
            if weight is None or weight.ndim != 2 or len(weight) != classes:
                raise ConfigError("a bank takes tasks whose classifiers are linear layers")
            # clones: as they were read they are views of the whole file
            known = weight.clone().to(device), None if bias is None else bias.clone().to(device)
            found[path.partition(".")[2]] = known
        return found

    def _hook(self, task: Task) -> None:
        """Let the backbone call what the task needs, where it does not yet."""
        if not self._hooked:
            with self._changes.recording(self.backbone):
                backbones.call_modules(self.backbone)
        for path in task.heads:
            if ("head", path) not in self._hooked:
                module = backbones.head(self.backbone).get_submodule(path)
                self._hooked["head", path] = [module.register_forward_hook(self._classify(path))]
        for place in task.work:
            if place not in self._hooked:
                self._hooked[place] = self._attend(place)
        for attention in task.silent:
            if attention not in self._hooked:
                reader = heads_reader(self.backbone, attention)
                self._hooked[attention] = [reader.register_forward_pre_hook(self._silence(attention))]

    def _attend(self, place: Place) -> list[RemovableHandle]:
        path, reads = place

        def remember(module: nn.Module, args: tuple[Any, ...]) -> None:
            if (route := self._route()) is not None:
                route.read[place] = args[0]

        def add(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            if (route := self._route()) is None:
                return out
            return route.add(place, route.read.pop(place) if reads else args[0], out)

        handles = [self.backbone.get_submodule(path).register_forward_hook(add)]
        if reads:
            handles.append(self.backbone.get_submodule(reads).register_forward_pre_hook(remember))
        return handles

    def _classify(self, path: str) -> Any:
        def classify(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
            route = self._route()
            return out if route is None else route.classify(path, args[0])

        return classify

    def _silence(self, attention: str) -> Any:
        def silence(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            route = self._route()
            return args if route is None else (route.silence(attention, args[0]), *args[1:])

        return silence

    def _route(self) -> Route | None:
        """The batch of this bank that is being computed, if any."""
        route = ROUTE.get()
        return route if route is not None and route.owner is self else None

    def _check_logits(self, name: str, stored: Stored) -> None:
        """Refuse a task whose logits on the fixed batch are not those of the time of saving."""
        task = self._tasks[name]

        def answer() -> Tensor:
            images = models.fixed_batch(self._size)
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                return self._run(images, [(task, 0, len(images))]).cpu()

        models.check_logits(answer, stored.description, stored.probe)
