"""A model under measurement: its units at work, its loss, and hooks that leave no trace."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Position
from pear_cli.config.settings import Score
from pear_cli.errors import ConfigError
from pear_cli.scoring.units import Slice, UnitAtWork
from pear_cli.training.devices import Device

Calibration = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Starts the calibration batches anew: images (B, 3, H, W), labels (B,)."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of a batch, of its logits (B, K) and labels (B,)."""

See = Callable[[UnitAtWork, Position, Tensor, Tensor], None]


@dataclass(frozen=True)
class Probe:
    """All that a criterion works with."""

    model: nn.Module
    units: list[UnitAtWork]
    batches: Calibration
    config: Score
    where: Device
    seed: int
    of_logits: Loss = F.cross_entropy

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K), in float32 at least."""
        with self.where.autocast():
            logits: Tensor = self.model(x)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of one batch, ℓ_b."""
        return self.of_logits(self.forward(x), y)

    @property
    def loss_scale(self) -> float:
        """float16 cannot hold the small gradients of activations; the parameters' own are float32."""
        return 1024.0 if self.where.dtype is torch.float16 else 1.0

    def gradients(self, wanted: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """∂ℓ_b/∂w of the `wanted` tensors, batch by batch, in one backward pass each."""
        scale = self.loss_scale
        for x, y in self.batches():
            with torch.enable_grad():
                loss = self.loss(x, y) * scale
                if not loss.requires_grad:
                    raise ConfigError(
                        f"score.criterion = {self.config.criterion.value}: in eval mode the loss does not "
                        "depend on the parameters of the units; use score.criterion=taylor score.of=gate"
                    )
                found = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
            yield [gradient / scale for gradient in found]

    def pairs(self, wanted: Sequence[Sequence[Slice]]) -> Iterator[list[list[tuple[Tensor, Tensor]]]]:
        """(∂ℓ_b/∂w, w) of the slices of every unit, batch by batch."""
        index = {id(part.parameter): part.parameter for parts in wanted for part in parts}
        for found in self.gradients(list(index.values())):
            gradient = dict(zip(index, found, strict=True))
            yield [[(p.of(gradient[id(p.parameter)]), p.of(p.parameter)) for p in parts] for parts in wanted]

    @contextmanager
    def watching(self, see: See, everywhere: bool) -> Iterator[None]:
        """Show what enters the positions of the units, while the model runs.

        Args:
            see: called with the unit, the position, what it reads (B, N, C_in), and the output of the
                frozen module there (B, N, C_out).
            everywhere: show all positions that a unit serves, or its home alone.
        """
        hooks = [
            position.register_forward_pre_hook(_shows(see, unit))
            for unit in self.units
            for position in (unit.positions if everywhere else (unit.home,))
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _shows(
    see: Callable[[UnitAtWork, Position, Tensor, Tensor], None], unit: UnitAtWork
) -> Callable[..., None]:
    def hook(position: Any, args: tuple[Tensor, Tensor]) -> None:
        see(unit, position, *args)

    return hook


@contextmanager
def undisturbed(model: nn.Module, adaptation: Adaptation) -> Iterator[None]:
    """Measure in eval mode, with gradients of the adapters alone; leave the model as it was."""
    training = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    gates = [(position, position.gate) for position in adaptation.each()]
    adapters = {id(p) for adapter in adaptation.adapters().values() for p in adapter.parameters()}
    try:
        model.eval()
        for parameter, _ in trained:
            parameter.requires_grad_(id(parameter) in adapters)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
        for position, gate in gates:
            position.gate = gate
