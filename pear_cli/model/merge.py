"""Merging: a plain timm model whose frozen weights hold the updates of the adapters."""

import copy

import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Adapter, Position
from pear_cli.backbone import batch_norm
from pear_cli.backbone.channels import strip, unhook
from pear_cli.backbone.sites import heads_reader
from pear_cli.errors import ConfigError, MergeError
from pear_cli.model import models

TOLERANCE = 1e-4  # of max |Δlogit|, relative to the largest logit where that is above 1


def merge(model: nn.Module) -> nn.Module:
    """A copy of a model without adapters and without hooks; its weights do their work.

        weight[rows] ← weight[rows] + Σ factor · scale · up · down

    The sum goes over the owner (factor 1) and the kept knowledge (factor beta) of each site; attention heads
    that are switched off become zero columns of the projection that reads them. It is computed in float64
    and cast back. Which parameters are trainable stays as it was. See `error` for how near the two are.

    Args:
        model: an adapted model, as `models.create` or `models.rebuild` made it; it is left as it is.

    Raises:
        ConfigError: an update that no weight can hold; it names the site, the method and the reason.
    """
    check(models.adaptation(model))
    plain = copy.deepcopy(model)
    adaptation = models.adaptation(plain).double()
    with torch.no_grad():
        for host in adaptation.hosts:
            if not any(position.parts() for position in host.positions):
                continue
            weight = plain.get_submodule(host.path).get_parameter("weight")
            weight.copy_(_folded(weight, host.positions))
            _shift(plain.get_submodule(host.path), host.positions)
        for attention, heads in adaptation.silent.items():
            _silence(plain, attention, heads)
    strip(plain)
    return plain


@torch.inference_mode()
def settle_biases(plain: nn.Module, model: nn.Module) -> None:
    """Let BatchNorms hold the biases that merging gave to layers without any, in place.

        norm(y + bias) is norm(y) with running_mean − bias

    Args:
        plain: what `merge` made; it has the parameters of timm's model then.
        model: what it was made of.

    Raises:
        ConfigError: no BatchNorm reads what such a layer writes.
    """
    new = {
        path: module
        for path, module in plain.named_modules()
        if getattr(module, "bias", None) is not None and getattr(model.get_submodule(path), "bias", 0) is None
    }
    written: dict[str, Tensor] = {}
    follows: dict[str, nn.Module] = {}

    def write(path: str, out: Tensor) -> None:
        written[path] = out

    def read(norm: nn.Module, x: Tensor) -> None:
        follows.update({path: norm for path, out in written.items() if out is x})

    for path, module in new.items():
        module.register_forward_hook(lambda _, args, out, path=path: write(path, out))
    for norm in batch_norm.norms(plain).values():
        norm.register_forward_pre_hook(lambda norm, args: read(norm, args[0]))
    size = models.input_size(plain)
    plain.eval()(torch.zeros(1, 3, size, size, device=next(plain.parameters()).device))
    unhook(plain)
    for path, module in new.items():
        if path not in follows:
            raise ConfigError(
                f"{path} has no bias in timm, and no BatchNorm follows that could hold what the adapter adds "
                "to it; use the adapted model as it is, without merge"
            )
        follows[path].get_buffer("running_mean").sub_(module.get_parameter("bias"))
        module.bias = None


@torch.no_grad()
def check(adaptation: Adaptation) -> None:
    """Refuse updates that no weight can hold.

    Raises:
        ConfigError: names the site, the method and the reason.
    """
    for position in adaptation.each():
        for adapter, _ in position.parts():
            reason = _unmerged(adapter, position)
            if reason is not None:
                raise ConfigError(
                    f"{position.site.name}: the update of {type(adapter.method).__name__} cannot be merged "
                    f"into a frozen weight: {reason}. Use the adapted model as it is, without merge"
                )


def checked(model: nn.Module) -> nn.Module:
    """What `merge` makes, if its logits are those of the model.

    Raises:
        ConfigError, MergeError: as `merge` and `error` raise them.
    """
    plain = merge(model)
    error(model, plain)
    return plain


def error(model: nn.Module, merged: nn.Module) -> float:
    """max |Δlogit| of a merged model, on the fixed batch of `models.probe`, in float32.

    Raises:
        MergeError: it is above 1e-4, relative to the largest logit where that is above 1.
    """
    size = models.input_size(model)
    expected = models.probe(model, size)
    found = (models.probe(merged, size) - expected).abs().max().item()
    if not found <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise MergeError(
            f"the merged model gives other logits than the adapted one (off by {found:.2g}): float32 weights "
            "cannot hold its updates; use the adapted model as it is, without merge"
        )
    return found


def _unmerged(adapter: Adapter, position: Position) -> str | None:
    """Why an update cannot be merged, or None where it can."""
    weight = position.weight
    if adapter.method.delta(adapter, weight) is None:
        return adapter.method.unmerged
    return "a whole mlp has no weight of its own that could hold it" if weight is None else None


def _folded(weight: Tensor, positions: list[Position]) -> Tensor:
    """A host's weight with all updates at its positions, in its shape, in float64.

    `weight` itself is unchanged meanwhile: NEAT makes its factors of it, for each position anew.
    """
    folded = weight.to(torch.float64, copy=True)
    centre = folded if folded.ndim == 2 else folded[:, :, folded.shape[2] // 2, folded.shape[3] // 2]
    for position in positions:
        rows = centre if position.site.rows is None else centre[slice(*position.site.rows)]
        original = position.weight
        assert original is not None
        for adapter, factor in position.parts():
            delta = adapter.method.delta(adapter, original.double())
            assert delta is not None
            rows += delta if factor is None else factor * delta  # C_out, C_in
    return folded


def _shift(module: nn.Module, positions: list[Position]) -> None:
    """Let a host's bias hold what updates at its positions add to it."""
    for position in positions:
        for adapter, factor in position.parts():
            shift = adapter.method.shift(adapter)
            if shift is None:
                continue
            if module.bias is None:
                module.bias = nn.Parameter(torch.zeros_like(shift, dtype=torch.float32), requires_grad=False)
            module.get_parameter("bias").add_(shift if factor is None else factor * shift)


def _silence(model: nn.Module, attention: str, heads: tuple[int, ...]) -> None:
    """Let the projection that reads an attention's heads read nothing of some."""
    reader = heads_reader(model, attention)
    count = model.get_submodule(attention).num_heads
    assert isinstance(count, int)
    width = reader.in_features // count  # Dh
    for head in heads:
        reader.weight.data[:, head * width : (head + 1) * width] = 0
