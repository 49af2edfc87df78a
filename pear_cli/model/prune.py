"""Take the pruned units from a dense model, in place, and let the kept adapters serve."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pear_cli.backbone.channels import bare, groups
from pear_cli.backbone.widths import Widths, select
from pear_cli.config.choices import Unit
from pear_cli.config.settings import Knowledge
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.pruning import knowledge
from pear_cli.pruning.mask import Mask, left_of
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance


class Pruned(NamedTuple):
    """What a model has become.

    Args:
        description: of the pruned model.
        kept: what is kept of the pruned adapters, as `knowledge.encode` has it.
        state: of the optimizer, of the parameters that remain.
    """

    description: Description
    kept: dict[str, Tensor]
    state: dict[str, Tensor]


def apply(
    model: nn.Module,
    description: Description,
    decision: ShareMap | Mask,
    importance: Importance | None,
    config: Knowledge,
    state: Mapping[str, Tensor],
) -> Pruned:
    """Apply a share map or a mask to a dense model, in place.

    Args:
        model: an adapted model; of channels, it may be narrowed already.
        description: of the model as it is.
        decision: what is pruned, and who serves.
        importance: of whole adapters; masks need none.
        config: what is kept of pruned adapters.
        state: of the optimizer, by names as `adapter.<site>.<parameter>::exp_avg`.
    """
    if isinstance(decision, ShareMap):
        assert importance is not None
        return _share(model, description, decision, importance, config, state)
    if decision.unit is Unit.channel:
        return _narrow(model, description, decision, state)
    adapted = models.adaptation(model)
    cuts = decision.cuts(adapted)
    decision.apply(model, adapted)
    described = dataclasses.replace(description, owners=adapted.owners(), mask=decision)
    return Pruned(described, {}, left_of(state, cuts))


def _share(
    model: nn.Module,
    description: Description,
    share_map: ShareMap,
    importance: Importance,
    config: Knowledge,
    state: Mapping[str, Tensor],
) -> Pruned:
    """Adapters gone, others in their place, and what is kept of the former."""
    adapted, before = models.adaptation(model), {n: t.clone() for n, t in models.tensors(model).items()}
    kept = knowledge.preserve(adapted, share_map, importance, config)
    adapted.share(share_map.owners)
    adapted.keep(knowledge.decode(kept, adapted.method, adapted.sites), config.beta, config.learn_beta)
    described = dataclasses.replace(description, owners=adapted.owners(), knowledge=config if kept else None)
    return Pruned(described, kept, _of_unchanged(state, before, models.tensors(model)))


def _of_unchanged(
    state: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state of the parameters that are still there and still the same; `absorb` changes owners."""
    same = {name for name, tensor in after.items() if name in before and torch.equal(tensor, before[name])}
    return {key: tensor for key, tensor in state.items() if key.rpartition("::")[0] in same}


def _narrow(model: nn.Module, description: Description, mask: Mask, state: Mapping[str, Tensor]) -> Pruned:
    """Channels gone, from the frozen weights as well."""
    whole = models.whole(description) if description.widths else model
    widths = Widths.without(mask.by_place(), groups(bare(whole), description.size))
    step = widths.since(description.built_widths())
    left = models.left_of(model, step)
    models.narrow(model, step)
    kept = {
        name: select(tensor, left.get(name.rpartition("::")[0], {})) if tensor.ndim else tensor
        for name, tensor in state.items()
    }
    return Pruned(dataclasses.replace(description, widths=widths.to_json() or None), {}, kept)
