"""Prune and share: which units go, and who serves in their place."""

from pear_cli.config.choices import Unit
from pear_cli.config.settings import Prune
from pear_cli.experiment.experiment import Experiment
from pear_cli.pruning.choose import choose
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from pear_cli.pruning.share_rules import assign_owners
from pear_cli.scoring.importance import Importance
from pear_cli.stages.job import MASK, SHARE_MAP, Job, Result
from pear_cli.system import progress


def prune_share(job: Job) -> Result:
    """Choose what to prune, and who serves in its place."""
    importance = Importance.from_json(job.inputs["score"].json("importance"))
    decision = decide(importance, job.experiment, job.experiment.pruning(job.step.round))
    job.draft.save_json(MASK if isinstance(decision, Mask) else SHARE_MAP, decision.to_json())
    for note in decision.notes:
        progress.say(note)
    units, pruned = len(importance.units), len(decision.pruned)
    return Result({"units": units, "pruned": pruned, "notes": list(decision.notes)})


def decide(importance: Importance, experiment: Experiment, prune: Prune) -> ShareMap | Mask:
    """Which units go: of adapters, who serves in their place; of the other units, the mask."""
    pruned, unit = choose(importance, prune), experiment.score.unit
    if unit is Unit.adapter:
        return assign_owners(importance, pruned, experiment.share.rule)
    return Mask.of(unit, experiment.prune.effect, pruned.units, pruned.notes)
