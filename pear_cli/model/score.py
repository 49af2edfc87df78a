"""The importance of the units of an adapted model, whatever their kind."""

from torch import nn
from torch.nn import functional as F

from pear_cli.backbone.channels import bare, groups
from pear_cli.config.choices import Unit
from pear_cli.config.settings import Score
from pear_cli.model.merge import merge
from pear_cli.model.models import adaptation, input_size
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.layers import Layer, blocks, channels
from pear_cli.scoring.measure import measure, measure_layers
from pear_cli.scoring.probe import Calibration, Loss
from pear_cli.scoring.units import check_kind
from pear_cli.training.devices import Device


def score(
    model: nn.Module,
    batches: Calibration,
    config: Score,
    where: Device,
    seed: int,
    loss: Loss = F.cross_entropy,
) -> Importance:
    """Measure how important every unit is, without changing the model: see `measure`.

    Channels and blocks are measured on a merged copy of the model.

    Raises:
        ConfigError: units that the method lacks, or a network whose channels cannot be followed.
    """
    if config.unit in (Unit.channel, Unit.block):
        check_kind(adaptation(model), config.unit)
        of = layers(model, config.unit)
        return measure_layers(merge(model), of, batches, config, where, seed, loss)
    return measure(model, batches, config, where, seed, loss)


def layers(model: nn.Module, unit: Unit) -> list[Layer]:
    """The channels of an adapted model, or the blocks of its adapted weights.

    Raises:
        ConfigError: a network whose channels cannot be followed.
    """
    if unit is Unit.block:
        return blocks(adaptation(model))
    plain = bare(model)
    return channels(plain, groups(plain, input_size(model)))
