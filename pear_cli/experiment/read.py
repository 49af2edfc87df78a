"""Reading an experiment from a composed root config."""

from collections.abc import Mapping
from typing import Any

from pear_cli.config.choices import Select
from pear_cli.config.node import contents, node
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.normalise import normalised


def read(config: Mapping[Any, Any], overrides: tuple[str, ...] = ()) -> Experiment:
    """The experiment of a root config, validated as a whole, without settings that have no effect.

    Args:
        config: an OmegaConf node or a plain dictionary.
        overrides: what names the experiment to another command.

    Raises:
        ConfigError: it names the key, the value and the remedy.
    """
    settings = contents(config, "")
    dataset = settings.get("dataset")
    if isinstance(dataset, dict) and dataset.get("train_split") is None:
        choosing = settings.get("select") == Select.val.value
        settings["dataset"] = dataset | {"train_split": "train800" if choosing else "train800val200"}
    return normalised(node(settings, Experiment, "", overrides=overrides))
