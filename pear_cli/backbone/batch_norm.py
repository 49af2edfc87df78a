"""BatchNorm in a backbone: whether training changes its running statistics, and which these are."""

import torch
from torch import Tensor, nn

from pear_cli.errors import ConfigError

LEARNS = "learns_statistics"
"""Attribute of a model whose running statistics training changes."""


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that normalise by running statistics, by path."""
    kind = nn.modules.batchnorm._BatchNorm
    found = {path: module for path, module in model.named_modules() if isinstance(module, kind)}
    return {path: module for path, module in found.items() if module.running_mean is not None}


def learn(model: nn.Module, name: str) -> None:
    """Let training change the running statistics of a model.

    Args:
        name: how messages call the model.

    Raises:
        ConfigError: it has none.
    """
    if not norms(model):
        raise ConfigError(f"backbone.batch_norm = train: {name} has no BatchNorm; leave it at frozen")
    setattr(model, LEARNS, True)


def learns(model: nn.Module) -> bool:
    """Whether training changes the running statistics of a model."""
    return getattr(model, LEARNS, False)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics that training changes, by path; none where they are frozen.

    Mean and variance (C) of each norm, and the number of batches that they were gathered from.
    """
    known = norms(model).items() if learns(model) else ()
    return {
        f"{path}.{name}": tensor for path, norm in known for name, tensor in norm.named_buffers(recurse=False)
    }


def check_batches(model: nn.Module, size: int, images: int, batch_size: int) -> None:
    """Refuse an epoch with a batch of one image where a norm would see a single value a channel.

    Args:
        model: in eval mode.
        size: side of its input, in pixels.
        images: of an epoch.
        batch_size: images a batch.

    Raises:
        ConfigError: names the setting and the norm; torch itself would stop amid the epoch.
    """
    if not learns(model) or (batch_size > 1 and images % batch_size != 1):
        return
    alone: list[str] = []

    def see(path: str, x: Tensor) -> None:
        if x.numel() == x.shape[1]:  # B, C, H, W
            alone.append(path)

    hooks = [
        norm.register_forward_pre_hook(lambda _, args, path=path: see(path, args[0]))
        for path, norm in norms(model).items()
    ]
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    if alone:
        one = "the last batch has one image" if batch_size > 1 else "each batch has one image"
        raise ConfigError(
            f"optim.batch_size = {batch_size}: of {images} images {one}, a single value a channel for "
            f"{alone[0]}, which has no variance; take another size, or backbone.batch_norm=frozen"
        )
