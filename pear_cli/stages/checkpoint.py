"""Knowledge checkpoint: all that adaptation goes on from."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from pear_cli import accounting, knowledge
from pear_cli import model as models
from pear_cli.scoring.importance import Importance
from pear_cli.sharing.share_map import ShareMap
from pear_cli.stages.base import OPTIMIZER, Job, Result, load_model


def checkpoint(job: Job) -> Result:
    """Prune, let the kept adapters serve, and keep what the pruned ones knew."""
    dense = job.inputs["train"]
    model, description = load_model(dense)
    adapted = models.adaptation(model)
    share_map = ShareMap.from_json(job.inputs["prune-share"].json("share_map"))
    importance = Importance.from_json(job.inputs["score"].json("importance"))
    config = job.experiment.knowledge
    before = {name: tensor.clone() for name, tensor in models.tensors(model).items()}
    kept = knowledge.preserve(adapted, share_map, importance, config)
    adapted.share(share_map.owners)
    adapted.keep(knowledge.decode(kept, adapted.method, adapted.sites), config.beta, config.learn_beta)

    described = dataclasses.replace(description, owners=adapted.owners(), knowledge=config if kept else None)
    job.save_model(model, described, kept)
    job.draft.save_tensors(
        OPTIMIZER, _state_of_unchanged(dense.tensors(OPTIMIZER), before, models.tensors(model))
    )
    costs = accounting.parameters(model)
    metrics = {"knowledge": config.kind.value, "knowledge_params": costs["knowledge_params"]}
    return Result(metrics, costs)


def _state_of_unchanged(
    state: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """AdamW's state of the parameters that are still there and still the same; `absorb` changes owners."""
    same = {name for name, tensor in after.items() if name in before and torch.equal(tensor, before[name])}
    return {key: tensor for key, tensor in state.items() if key.rpartition("::")[0] in same}
