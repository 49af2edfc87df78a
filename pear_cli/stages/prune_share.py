"""Prune and share: which adapters go, and who serves in their place."""

from pear_cli.pruning import choose
from pear_cli.scoring.importance import Importance
from pear_cli.sharing.rules import assign_owners
from pear_cli.stages.base import Job, Result


def prune_share(job: Job) -> Result:
    """Choose what to prune, and who serves in its place."""
    importance = Importance.from_json(job.inputs["score"].json("importance"))
    pruned = choose(importance, job.experiment.prune)
    share_map = assign_owners(importance, pruned, job.experiment.share.rule)
    job.draft.save_json("share_map", share_map.to_json())
    return Result(
        {"units": len(share_map.owners), "pruned": len(pruned.sites), "notes": list(share_map.notes)}
    )
