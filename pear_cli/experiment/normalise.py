"""What an experiment means: settings without effect replaced, and what has no meaning refused."""

import itertools
from dataclasses import replace

from pear_cli.adapters.cut import HEADED
from pear_cli.config.choices import (
    Criterion,
    Effect,
    KnowledgeKind,
    OptimizerState,
    PruneBy,
    Reduction,
    Resize,
    Schedule,
    Scope,
    ScoreOf,
    Select,
    SharedGrad,
    ShareRule,
    Unit,
)
from pear_cli.config.settings import WITHOUT_DATA, Share
from pear_cli.data.dataset import Normalization
from pear_cli.errors import ConfigError
from pear_cli.experiment.experiment import USUAL, Experiment
from pear_cli.pruning.preservable import check

OTHER_METHODS = {Unit.channel: "method=splora, sppara or full", Unit.block: "method=splopa"}

PRUNE_AT, START_LR = 0.5, 1e-6
"""What settings become where nothing reads them: the values that the presets have."""


def normalised(experiment: Experiment) -> Experiment:
    """Replace settings that have no effect, so that equal experiments have equal keys.

    Raises:
        ConfigError: settings that contradict each other.
    """
    if experiment.select is Select.val and experiment.dataset.train_split != "train800":
        raise ConfigError(
            "select=val chooses on val200, which "
            f"dataset.train_split={experiment.dataset.train_split} trains on; leave it out, or set "
            "dataset.train_split=train800"
        )
    for rule in (_images, _baseline, _kept, _training):
        experiment = rule(experiment)
    _check_pruning(experiment)
    if experiment.prunes or (experiment.score.unit is not Unit.adapter and experiment.method.units):
        _check_unit(experiment)
    if experiment.prunes:
        check(experiment.knowledge, experiment.share.rule, experiment.method)
    return _scored(experiment)


def _images(experiment: Experiment) -> Experiment:
    """What prepares the images, and divides them."""
    dataset, backbone = experiment.dataset, experiment.backbone
    if dataset.normalization is not Normalization.backbone:
        backbone = replace(backbone, mean=None, std=None)
    if dataset.resize is Resize.direct:
        dataset = replace(dataset, crop_pct=None)
    if not dataset.is_drawn:
        dataset = replace(dataset, split_seed=0)
    return replace(experiment, dataset=dataset, backbone=backbone, method=experiment.method.normalised())


def _baseline(experiment: Experiment) -> Experiment:
    """At `prune.ratio=0` nothing is pruned, shared or kept."""
    if experiment.prune.ratio != 0:
        return experiment
    prune = replace(experiment.prune, by=PruneBy.count, scope=Scope["global"], steps=1, round_to=1)
    knowledge = replace(experiment.knowledge, kind=KnowledgeKind.none)
    return replace(experiment, prune=prune, share=Share(ShareRule.none), knowledge=knowledge)


def _kept(experiment: Experiment) -> Experiment:
    """What a kind of knowledge does not read."""
    kept = experiment.knowledge
    if kept.kind is not KnowledgeKind.lowrank:
        kept = replace(kept, rank=1)
    if kept.kind in (KnowledgeKind.none, KnowledgeKind.absorb):
        kept = replace(kept, beta=1.0, learn_beta=False)
    return replace(experiment, knowledge=kept)


def _training(experiment: Experiment) -> Experiment:
    """What neither phase of training reads."""
    optim = experiment.optim
    if optim.warmup == 0:
        optim = replace(optim, start_lr=START_LR)
    if optim.shared_epochs == 0 or experiment.share.rule is ShareRule.none:
        optim = replace(optim, shared_grad=SharedGrad.sum)
    if optim.shared_epochs == 0:
        optim = replace(optim, optimizer_state=OptimizerState.keep)
    if optim.schedule is Schedule.continued:
        halved = replace(optim, prune_at=PRUNE_AT)
        at = PRUNE_AT if halved.dense_epochs == optim.dense_epochs else optim.dense_epochs / optim.epochs
        optim = replace(optim, prune_at=at)
    elif not experiment.prunes:
        optim = replace(optim, epochs=optim.epochs + optim.adapt_epochs, adapt_epochs=0)
    return replace(experiment, optim=optim)


def _scored(experiment: Experiment) -> Experiment:
    """What scoring and choosing do not read; at `prune.ratio=0` all units are alike."""
    score, prune, method = experiment.score, experiment.prune, experiment.method
    if prune.ratio == 0:
        prune = replace(prune, effect=Effect.adapter)
        unit = next(unit for unit in Unit if unit in method.units) if method.has_units else score.unit
        if unit is not score.unit:
            score = replace(USUAL, unit=unit, batches=score.batches, batch_size=score.batch_size)
    if score.criterion is not Criterion.taylor:
        score = replace(score, reduction=USUAL.reduction, of=USUAL.of)
    if score.criterion in WITHOUT_DATA and not _compares(experiment):
        score = replace(score, batches=USUAL.batches, batch_size=USUAL.batch_size)
    if score.batches == 1 and score.reduction is Reduction.abs_of_sum:
        score = replace(score, reduction=USUAL.reduction)
    if score.unit not in (Unit.adapter, Unit.rank) or (score.unit is Unit.rank and score.of is ScoreOf.up):
        score = replace(score, of=USUAL.of)
    one_slot = score.unit is Unit.head or (score.unit is not Unit.channel and len(method.slots) == 1)
    if prune.scope is Scope.slot and one_slot:
        prune = replace(prune, scope=Scope["global"])
    return replace(experiment, score=score, prune=prune)


def _compares(experiment: Experiment) -> bool:
    """Whether the outputs of adapters are compared on calibration data, whatever the criterion reads."""
    return experiment.score.unit is Unit.adapter and experiment.share.rule is ShareRule.similar


def _check_pruning(experiment: Experiment) -> None:
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


def _check_unit(experiment: Experiment) -> None:
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
