"""What an experiment means: settings without effect replaced, and what has no meaning refused."""

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

from pear_cli.adapters.cut import HEADED
from pear_cli.config import choices
from pear_cli.config import settings as nodes
from pear_cli.config.choices import (
    Criterion,
    Effect,
    KnowledgeKind,
    PruneBy,
    Reduction,
    Scope,
    ScoreOf,
    Select,
    ShareRule,
    Unit,
)
from pear_cli.data.dataset import Normalization
from pear_cli.errors import ConfigError

if TYPE_CHECKING:
    from pear_cli.experiment.experiment import Experiment

OTHER_METHODS = {Unit.channel: "method=splora, sppara or full", Unit.block: "method=splopa"}


def normalised(experiment: "Experiment") -> "Experiment":
    """Replace settings that have no effect, so that equal experiments have equal keys."""
    if experiment.select is Select.val and experiment.dataset.train_split != "train800":
        raise ConfigError(
            "select=val chooses on val200, which "
            f"dataset.train_split={experiment.dataset.train_split} trains on; leave it out, or set "
            "dataset.train_split=train800"
        )
    changes: dict[str, Any] = {}
    if experiment.dataset.normalization is not Normalization.backbone:
        changes["backbone"] = dataclasses.replace(experiment.backbone, mean=None, std=None)
    if experiment.dataset.resize is choices.Resize.direct and experiment.dataset.crop_pct is not None:
        changes["dataset"] = dataclasses.replace(experiment.dataset, crop_pct=None)
    if experiment.prune.ratio == 0:
        changes["prune"] = dataclasses.replace(
            experiment.prune, by=PruneBy.count, scope=Scope["global"], steps=1, round_to=1
        )
        changes["share"] = nodes.Share(ShareRule.none)
        changes["knowledge"] = dataclasses.replace(experiment.knowledge, kind=KnowledgeKind.none)
    if experiment.score.criterion is not Criterion.taylor:
        changes["score"] = dataclasses.replace(
            experiment.score, reduction=Reduction.mean_abs, of=ScoreOf.gate
        )
    kept = changes.get("knowledge", experiment.knowledge)
    if kept.kind is not KnowledgeKind.lowrank:
        kept = dataclasses.replace(kept, rank=1)
    if kept.kind in (KnowledgeKind.none, KnowledgeKind.absorb):
        kept = dataclasses.replace(kept, beta=1.0, learn_beta=False)
    changes["knowledge"] = kept
    if not experiment.prunes and experiment.optim.schedule is choices.Schedule.per_phase:
        epochs = experiment.optim.epochs + experiment.optim.adapt_epochs
        changes["optim"] = dataclasses.replace(experiment.optim, epochs=epochs, adapt_epochs=0)
    result = dataclasses.replace(experiment, **changes)
    _check_pruning(result)
    if experiment.prunes or (result.score.unit is not Unit.adapter and result.method.units):
        _check_unit(result)
    if experiment.prunes:
        from pear_cli.pruning.knowledge import check

        check(result.knowledge, result.share.rule, result.method)
    return result


def _check_pruning(experiment: "Experiment") -> None:
    """Refuse ways of pruning that the scored units have not, also where a method has no units at all."""
    unit, prune = experiment.score.unit, experiment.prune
    if prune.effect is not Effect.adapter and unit is not Unit.head:
        raise ConfigError(
            f"prune.effect = {prune.effect.value} is of attention heads; it needs score.unit=head"
        )
    for name in ("steps", "round_to"):
        value = getattr(prune, name)
        if value != 1 and unit is not Unit.channel:
            raise ConfigError(f"prune.{name} = {value} is of channels; it needs score.unit=channel")
    epochs = experiment.optim.shared_epochs
    if experiment.prunes and 0 < epochs < prune.steps:
        raise ConfigError(
            f"prune.steps = {prune.steps} is more than the epochs of adaptation ({epochs}), so some rounds "
            "would have none; use fewer steps or more epochs (none at all: no round adapts)"
        )


def _check_unit(experiment: "Experiment") -> None:
    """Refuse units that the method has not, or that cannot be shared or kept."""
    unit, known = experiment.score.unit, experiment.method.units
    if unit not in known:
        names = f"score.unit={', '.join(unit.value for unit in Unit if unit in known)}" if known else ""
        names = names if experiment.method.has_units else names.replace(".unit", "")  # it shares by default
        raise ConfigError(
            f"score.unit = {unit.value}: {type(experiment.method).__name__} has no such units; use "
            + " or ".join(filter(None, (names, OTHER_METHODS.get(unit, "another method"))))
        )
    if unit is Unit.head and not set(experiment.method.slots) & set(HEADED):
        raise ConfigError(f"score.unit = head needs one of the method.slots {', '.join(HEADED)}")
    shared = experiment.share.rule is not ShareRule.none, experiment.knowledge.kind is not KnowledgeKind.none
    if unit is not Unit.adapter and any(shared):
        found = (
            f"share.rule = {experiment.share.rule.value}",
            f"knowledge.kind = {experiment.knowledge.kind.value}",
        )
        named = " and ".join(itertools.compress(found, shared))
        raise ConfigError(
            f"{named}: only whole adapters are shared and kept; "
            f"with score.unit = {unit.value} set share=none knowledge=none"
        )
