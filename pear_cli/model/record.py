"""What is known of an adapted model in memory, beside its tensors."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.method import Method
from pear_cli.backbone.backbones import head
from pear_cli.backbone.changes import Changes
from pear_cli.config.choices import Unit
from pear_cli.model.description import Description
from pear_cli.model.models import adaptation
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance


@dataclass
class Bare:
    """What a model was before it was adapted.

    Args:
        changes: the modules, tensors and attributes that adapting replaced.
        trainable: which parameters required gradients, by name.
        values: of the classifier, and of the parameters and buffers that the task changes.
    """

    changes: Changes
    trainable: dict[str, bool]
    values: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, method: Method) -> "Bare":
        """What a model is now that the method is to be attached to."""
        classifier = {id(p) for p in head(model).parameters()}
        bare = cls(Changes(), {name: p.requires_grad for name, p in model.named_parameters()}, {})
        bare.remember({n: p for n, p in model.named_parameters() if method.adapts(n) or id(p) in classifier})
        return bare

    def remember(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep copies of parameters and buffers that are about to change, by their names in the model."""
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.values = copies | self.values

    @contextmanager
    def recording(self, model: nn.Module) -> Iterator[None]:
        """Record what the block does to the model; where it fails, it is undone at once."""
        try:
            with self.changes.recording(model):
                try:
                    yield
                except BaseException:
                    if hasattr(model, "adaptation"):
                        adaptation(model).detach(model)
                    raise
        except BaseException:
            self._undo(model)
            raise

    def restore(self, model: nn.Module) -> None:
        """Take the adapters from a model, and give it back what it was before, bit for bit, in place."""
        adaptation(model).detach(model)
        self.changes.undo(next(model.parameters()).device)
        self._undo(model)

    @torch.no_grad()
    def _undo(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.trainable.get(name, parameter.requires_grad))
            parameter.grad = None
        now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, value in self.values.items():
            if name in now and now[name].shape == value.shape:  # else somebody has replaced it meanwhile
                now[name].copy_(value)


@dataclass
class Record:
    """What is known of an adapted model; `model.adaptation.record` holds it.

    Args:
        description: of the model as it is; its classes may be made up, see `named`.
        kept: encoded knowledge of pruned adapters.
        named: whether the classes are known by name.
        bare: what it was before; None where its weights before are not kept.
        importance: that pruning went by.
        share_map: of a model whose adapters were pruned, else None.
    """

    description: Description
    kept: dict[str, Tensor] = field(default_factory=dict)
    named: bool = True
    bare: Bare | None = None
    importance: Importance | None = None
    share_map: ShareMap | None = None

    def recording(self, model: nn.Module) -> AbstractContextManager[None]:
        """Record what the block does to the backbone, if what it was before is known."""
        return nullcontext() if self.bare is None else self.bare.changes.recording(model)


def record(model: nn.Module) -> Record:
    """The record of an adapted model."""
    found = adaptation(model).record
    assert isinstance(found, Record)
    return found


def share_map_of(model: nn.Module, description: Description) -> ShareMap | None:
    """The share map that a description states, without its rule; None where every adapter serves itself."""
    owners = description.owners
    if description.mask is not None or description.widths or all(o == site for site, o in owners.items()):
        return None
    groups = {site.name: site.group for site in adaptation(model).sites}
    return ShareMap({site: owners[site] for site in groups}, groups, None)


def cleared(adapted: Adaptation, mask: Mask | None) -> dict[str, Tensor]:
    """The frozen weights of which a mask sets blocks to zero, by their names in the model."""
    if mask is None or mask.unit is not Unit.block:
        return {}
    positions = adapted.at(*mask.by_place())
    return {f"{p.site.module}.weight": p.weight for p in positions if p.weight is not None}
