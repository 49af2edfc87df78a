"""Somebody's own optimizer over a pruned model: its parameters and their state, by name."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def state_of(optimizer: Optimizer, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """An optimizer's state by `<parameter>::<name>`; of tensors of the parameter's shape, and scalars."""
    found = {}
    for name, parameter in trained.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape in (parameter.shape, ()):
                found[f"{name}::{key}"] = value
    return found


def follow(
    optimizer: Optimizer,
    before: Mapping[str, nn.Parameter],
    after: Mapping[str, nn.Parameter],
    known: Mapping[str, Tensor],
    left: Mapping[str, Tensor],
) -> None:
    """Let an optimizer train what remains of a pruned model, in place.

    Its groups lose the parameters that are gone, and have those that are narrower in the place of the old;
    new parameters, such as a learned beta, join the first group that has an adapter's. What is not the
    model's stays. A parameter that lost some of its state starts afresh.

    Args:
        before, after: the trained parameters by name, before pruning and after.
        known, left: the state before, as `state_of` has it, and what pruning leaves of it.
    """
    names = {id(parameter): name for name, parameter in before.items()}
    new = [parameter for name, parameter in after.items() if name not in before]
    for group in optimizer.param_groups:
        kept: list[Any] = []
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is None:
                kept.append(parameter)
                continue
            old = optimizer.state.pop(parameter, {})
            if name not in after:
                continue
            kept.append(after[name])
            keys = {key: f"{name}::{key}" for key in old}
            same = after[name].shape == parameter.shape
            lost = [k for k in old if (keys[k] in known or not same) and keys[k] not in left]
            if not any(isinstance(old[key], Tensor) for key in lost) and old:
                optimizer.state[after[name]] = {k: left.get(keys[k], value) for k, value in old.items()}
        if new and any(names.get(id(p), "").startswith("adapter.") for p in group["params"]):
            kept, new = kept + new, []
        group["params"] = kept
