"""Knowledge checkpoint: all that adaptation goes on from."""

import copy
import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pear_cli.backbone.channels import bare, groups
from pear_cli.backbone.widths import Widths, select
from pear_cli.config.choices import Unit
from pear_cli.config.settings import Knowledge
from pear_cli.model import costs as accounting
from pear_cli.model import model as models
from pear_cli.model.description import Description
from pear_cli.pruning import knowledge
from pear_cli.pruning.mask import Mask, left_of
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance
from pear_cli.stages.job import MASK, OPTIMIZER, SHARE_MAP, Job, Result, load_model


def checkpoint(job: Job) -> Result:
    """Prune, let the kept adapters serve, and keep what the pruned ones knew."""
    model, described, kept, state = MAKE[job.experiment.score.unit](job)
    job.save_model(model, described, kept)
    job.draft.save_tensors(OPTIMIZER, state)
    costs = accounting.parameters(model)
    metrics = {
        "knowledge": job.experiment.knowledge.kind.value,
        "knowledge_params": costs["knowledge_params"],
    }
    return Result(metrics, costs)


Made = tuple[nn.Module, Description, dict[str, Tensor], dict[str, Tensor]]
"""A model, its description, its knowledge, and AdamW's state."""


def apply(
    model: nn.Module,
    description: Description,
    decision: ShareMap | Mask,
    importance: Importance | None,
    config: Knowledge,
) -> tuple[Description, dict[str, Tensor]]:
    """Take the pruned units from a dense model, in place, and let the kept ones serve.

    Args:
        importance: of whole adapters; masks need none.

    Returns:
        What the model is now, and what is kept of the pruned adapters, encoded.
    """
    adapted = models.adaptation(model)
    if isinstance(decision, Mask) and decision.unit is Unit.channel:
        whole = model if description.widths is None else models.whole(description)
        widths = Widths.without(decision.by_place(), groups(bare(whole), description.size))
        models.narrow(model, widths.since(description.built_widths()))
        return dataclasses.replace(description, widths=widths.to_json()), {}
    if isinstance(decision, Mask):
        decision.apply(model, adapted)
        return dataclasses.replace(description, owners=adapted.owners(), mask=decision), {}
    assert importance is not None
    kept = knowledge.preserve(adapted, decision, importance, config)
    adapted.share(decision.owners)
    adapted.keep(knowledge.decode(kept, adapted.method, adapted.sites), config.beta, config.learn_beta)
    left = config if kept else None
    return dataclasses.replace(description, owners=adapted.owners(), knowledge=left), kept


def _shared(job: Job) -> Made:
    """Adapters gone, others in their place, and what is kept of the former."""
    dense = job.inputs["train"]
    model, description = load_model(dense)
    share_map = ShareMap.from_json(job.inputs["prune-share"].json(SHARE_MAP))
    importance = Importance.from_json(job.inputs["score"].json("importance"))
    before = {name: tensor.clone() for name, tensor in models.tensors(model).items()}
    described, kept = apply(model, description, share_map, importance, job.experiment.knowledge)
    state = _state_of_unchanged(dense.tensors(OPTIMIZER), before, models.tensors(model))
    return model, described, kept, state


def _masked(job: Job) -> Made:
    """Heads or rank-1 components gone; what is left of the tensors, without zeros."""
    dense = job.inputs["train"]
    model, description = load_model(dense)
    mask = Mask.from_json(job.inputs["prune-share"].json(MASK))
    cuts = mask.cuts(models.adaptation(model))
    described, kept = apply(model, description, mask, None, job.experiment.knowledge)
    return model, described, kept, left_of(dense.tensors(OPTIMIZER), cuts)


def _narrow(job: Job) -> Made:
    """Channels gone, from the frozen weights as well; what is left of the tensors."""
    dense = job.inputs["train"]
    model, description = load_model(dense)
    mask, before = Mask.from_json(job.inputs["prune-share"].json(MASK)), copy.deepcopy(model)
    described, kept = apply(model, description, mask, None, job.experiment.knowledge)
    widths = described.built_widths()
    assert widths is not None
    left = models.left_of(before, widths.since(description.built_widths()))
    state = {
        name: select(tensor, left.get(name.rpartition("::")[0], {})) if tensor.ndim else tensor
        for name, tensor in dense.tensors(OPTIMIZER).items()
    }
    return model, described, kept, state


MAKE: Mapping[Unit, Callable[[Job], Made]] = {
    Unit.adapter: _shared,
    Unit.head: _masked,
    Unit.rank: _masked,
    Unit.channel: _narrow,
    Unit.block: _masked,
}


def _state_of_unchanged(
    state: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """AdamW's state of the parameters that are still there and still the same; `absorb` changes owners."""
    same = {name for name, tensor in after.items() if name in before and torch.equal(tensor, before[name])}
    return {key: tensor for key, tensor in state.items() if key.rpartition("::")[0] in same}
