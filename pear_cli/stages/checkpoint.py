"""Knowledge checkpoint: all that adaptation continues from."""

from pear_cli.config.choices import Unit
from pear_cli.model import costs
from pear_cli.model.load import MASK, OPTIMIZER, SHARE_MAP, load_model
from pear_cli.model.prune import apply
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance
from pear_cli.stages.job import Job, Result


def checkpoint(job: Job) -> Result:
    """Prune, let the kept adapters serve, and keep what the pruned ones knew."""
    dense, chosen = job.inputs["train"], job.inputs["prune-share"]
    model, description = load_model(dense)
    decision: ShareMap | Mask
    if job.experiment.score.unit is Unit.adapter:
        decision = ShareMap.from_json(chosen.json(SHARE_MAP))
        importance = Importance.from_json(job.inputs["score"].json("importance"))
    else:
        decision, importance = Mask.from_json(chosen.json(MASK)), None
    config = job.experiment.knowledge
    pruned = apply(model, description, decision, importance, config, dense.tensors(OPTIMIZER))
    job.save_model(model, pruned.description, pruned.kept)
    job.draft.save_tensors(OPTIMIZER, pruned.state)
    accounting = costs.parameters(model, pruned.kept)
    metrics = {"knowledge": config.kind.value, "knowledge_params": accounting["knowledge_params"]}
    return Result(metrics, accounting)
