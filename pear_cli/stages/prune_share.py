"""Prune and share: which units go, and who serves in their place."""

from pear_cli.model.load import MASK, SHARE_MAP
from pear_cli.pruning.decide import decide
from pear_cli.pruning.mask import Mask
from pear_cli.scoring.importance import Importance
from pear_cli.stages.job import Job, Result
from pear_cli.system import progress


def prune_share(job: Job) -> Result:
    """Choose what to prune, and who serves in its place."""
    importance, e = Importance.from_json(job.inputs["score"].json("importance")), job.experiment
    decision = decide(importance, e.score.unit, e.pruning(job.step.round), e.share.rule)
    job.draft.save_json(MASK if isinstance(decision, Mask) else SHARE_MAP, decision.to_json())
    for note in decision.notes:
        progress.say(note)
    units, pruned = len(importance.units), len(decision.pruned)
    return Result({"units": units, "pruned": pruned, "notes": list(decision.notes)})
