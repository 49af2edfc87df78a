"""Dropout and drop-path of a batch that processes share: each uses its part of what is drawn for all."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from pear_cli.backbone import backbones
from pear_cli.system.team import Part


class Noise:
    """Lets the dropout modules of a model draw for the whole batch, whatever part of it they are given.

    Each draws what one process would, with the same generator in the same state, and applies the rows of its
    own images: the masks do not depend on the number of processes. Dropout inside a fused attention, which is
    no module's output, is drawn by each process for itself.

    Args:
        model: its modules change, in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self.part: Part | None = None
        for module in model.modules():
            if backbones.multiplies_at_random(module):
                module.forward = partial(self._forward, module, module.forward)

    def _forward(self, module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if not module.training or self.part is None:
            return forward(x)
        rows, rest = divmod(len(x), len(self.part.places))  # a row an image, or a window of one
        assert not rest
        ones = x.new_ones(self.part.whole * rows, *x.shape[1:])
        factors = forward(ones).view(self.part.whole, rows, *x.shape[1:])
        mine: Tensor = factors[self.part.places.to(x.device)].view_as(x)
        return x * mine
