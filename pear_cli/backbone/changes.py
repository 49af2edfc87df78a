"""What is changed in a model in place: recorded, so that it can be undone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

KINDS = ("_parameters", "_buffers", "_modules")
OWN = frozenset(nn.Module().__dict__)
"""What every module has: its tensors and children, which are compared one by one, its hooks and its mode."""


class Missing:
    """Stands for what was not there; the class itself, which copies of a model share."""


class Changes:
    """Parameters, buffers, children and attributes of a model's modules that were replaced meanwhile.

    What was changed inside a tensor, by training or `Module.to`, is not recorded; neither are hooks.
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[nn.Module, str, str, Any]] = []

    @contextmanager
    def recording(self, model: nn.Module) -> Iterator[None]:
        """Record what the block replaces, but of adapters; where it fails, that is undone at once."""
        adapters = model._modules.get("adaptation")
        own = set(adapters.modules()) if adapters is not None else set()
        modules = [module for module in model.modules() if module not in own]
        before = [(module, kind, _of(module, kind)) for module in modules for kind in ("", *KINDS)]
        count = len(self._replaced)
        try:
            yield
        except BaseException:
            self._add(before)
            self.undo(down_to=count)
            raise
        self._add(before)

    def _add(self, before: list[tuple[nn.Module, str, dict[str, Any]]]) -> None:
        for module, kind, known in before:
            now = _of(module, kind)
            for name in known.keys() | now.keys():
                old = known.get(name, Missing)
                if now.get(name, Missing) is not old:
                    self._replaced.append((module, kind, name, old))

    def undo(self, device: torch.device | None = None, down_to: int = 0) -> None:
        """Put everything back but the first `down_to` changes, the latest first, on `device`."""
        while len(self._replaced) > down_to:
            module, kind, name, old = self._replaced.pop()
            where = module.__dict__[kind] if kind else module.__dict__
            if old is Missing:
                where.pop(name, None)
                continue
            if device is not None and isinstance(old, nn.Module):
                old.to(device)
            elif device is not None and isinstance(old, nn.Parameter):
                old.data = old.data.to(device)
            elif device is not None and isinstance(old, torch.Tensor):
                old = old.to(device)
            where[name] = old


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode; each of its modules has its own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _of(module: nn.Module, kind: str) -> dict[str, Any]:
    if kind:
        return dict(module.__dict__[kind])
    return {name: value for name, value in module.__dict__.items() if name not in OWN}
