"""Score every unit of a model on calibration data."""

import math
from collections.abc import Sequence

import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.config.choices import Criterion, Unit
from pear_cli.config.settings import WITHOUT_DATA, Score
from pear_cli.errors import ConfigError, DataError, TrainingError
from pear_cli.scoring.criteria import CRITERIA, reduce
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.layers import Layer, terms
from pear_cli.scoring.probe import Calibration, Loss, Probe, undisturbed
from pear_cli.scoring.similarity import similarities
from pear_cli.scoring.units import UnitAtWork, units_at_work
from pear_cli.training.batches import Batches
from pear_cli.training.devices import Device
from pear_cli.training.engine import derive

REMEDY = "try runtime.precision=float32 or a lower optim.lr"


def calibration(split: Batches, config: Score) -> Calibration:
    """The calibration batches: `score.batches` of a training split, or all of it once.

    The images are drawn in one fixed random order, whatever the seed: a split may list its classes one after
    the other, and then its first images, and each of its batches, would show one class alone.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive(0, "calibration")))
    images = None if config.batches is None else config.batches * config.batch_size
    chosen = torch.split(order[:images], config.batch_size)
    again = split.repeated(len(order[:images]))
    return lambda: again.each(chosen)


def passes(model: nn.Module, config: Score) -> int:
    """How often `measure` or `measure_layers` reads the calibration data, after it has counted the images.

    Args:
        model: the adapted model.
    """
    if config.criterion is Criterion.ablation:
        found = 2 + len(units_at_work(_adaptation(model), config.unit))
    else:
        found = int(config.criterion not in WITHOUT_DATA)
    return found + (config.unit is Unit.adapter)  # the similarity of whole adapters


def measure(
    model: nn.Module,
    batches: Calibration,
    config: Score,
    where: Device,
    seed: int,
    loss: Loss = F.cross_entropy,
) -> Importance:
    """The importance of every unit (docs/methods.md, section 2), and how alike the units are.

    The model is measured in eval mode and left exactly as it was: parameters, gradients, flags and hooks. An
    adapter that serves several sites is one unit; it is gated at all of them.

    Args:
        model: a backbone with an adaptation, dense or already shared, on the device of the batches.
        batches: starts the calibration batches anew on each call.
        where: the precision of the forward pass.
        seed: of the criterion `random`; nothing else depends on it.
        loss: that importance is a change of.

    Raises:
        ConfigError: a method without adapters, or without units of the wanted kind.
        DataError: no calibration images.
        TrainingError: a score or a similarity that is not finite.
    """
    adaptation = _adaptation(model)
    units = units_at_work(adaptation, config.unit)
    images = _images(batches)
    with undisturbed(model, adaptation):
        probe = Probe(model, units, batches, config, where, seed, loss)
        similarity = similarities(probe, len(images)) if config.unit is Unit.adapter else {}
        found = CRITERIA[config.criterion](probe)
    scores = reduce(found, config.criterion, config.reduction)
    _check_finite(scores, similarity, units, config)
    return Importance(
        criterion=config.criterion.value,
        units=tuple(unit.unit for unit in units),
        scores=tuple(scores.tolist()),
        images=sum(images),
        kendall_tau=_stability(found, config),
        similarity=similarity,
    )


def measure_layers(
    plain: nn.Module,
    of: list[Layer],
    batches: Calibration,
    config: Score,
    where: Device,
    seed: int,
    loss: Loss = F.cross_entropy,
) -> Importance:
    """The importance of the channels or the blocks of a network, as `measure` has it.

    Args:
        plain: a network without adapters, whose weights hold their updates; it is left as it is.
        of: its channels or blocks.
        batches, where, seed, loss: as for `measure`.

    Raises:
        DataError, TrainingError: as `measure` raises them.
    """
    images = _images(batches)
    found = terms(Probe(plain.eval(), [], batches, config, where, seed, loss), of)
    units = tuple(unit for layer in of for unit in layer.units)
    scores = reduce(found, config.criterion, config.reduction)
    named = zip((unit.called for unit in units), scores.tolist(), strict=True)
    bad = [name for name, score in named if not math.isfinite(score)]
    if bad:
        raise TrainingError(f"the {config.criterion.value} score of {bad[0]} is not finite; {REMEDY}")
    return Importance(
        criterion=config.criterion.value,
        units=units,
        scores=tuple(scores.tolist()),
        images=sum(images),
        kendall_tau=_stability(found, config),
        similarity={},
    )


def _adaptation(model: nn.Module) -> Adaptation:
    found = getattr(model, "adaptation", None)
    if not isinstance(found, Adaptation) or not found.sites:
        raise ConfigError("this method has no adapters: there is nothing to score")
    return found


def _images(batches: Calibration) -> list[int]:
    """How many images each calibration batch has."""
    images = [len(labels) for _, labels in batches()]
    if not images:
        raise DataError("there are no calibration images")
    return images


def _stability(terms: Tensor, config: Score) -> float | None:
    """Kendall's tau of the scores over the even and over the odd batches."""
    if config.criterion in WITHOUT_DATA or len(terms) < 2:
        return None
    halves = (reduce(terms[start::2], config.criterion, config.reduction).tolist() for start in (0, 1))
    return kendall_tau(*halves)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of two scores of the same units, in [-1, 1]; None if one side ties or has one unit."""
    if len(first) < 2:
        return None
    tau = float(scipy.stats.kendalltau(first, second).statistic)  # scipy loads its parts when they are used
    return tau if math.isfinite(tau) else None


def _check_finite(
    scores: Tensor, similarity: dict[str, dict[str, float]], units: list[UnitAtWork], config: Score
) -> None:
    found = {
        f"the {config.criterion.value} score of {u.unit.name}": s
        for u, s in zip(units, scores.tolist(), strict=True)
    }
    for site, row in similarity.items():
        found |= {f"the similarity of {site} and {other}": value for other, value in row.items()}
    for what, value in found.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} is {value}: its update, the loss or the gradients are not finite; {REMEDY}"
            )
