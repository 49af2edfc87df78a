"""Every preset of conf/dataset composes and builds."""

from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pear_cli.config.node import node
from pear_cli.config.presets import config_dir
from pear_cli.data.bundled import FILES
from pear_cli.data.dataset import Dataset
from pear_cli.data.drawing import TASKS

PRESETS = sorted(Path(config_dir() / "dataset").glob("*.yaml"))


def build(preset: Path) -> Dataset:
    fields = dict(OmegaConf.load(preset))
    if fields["train_split"] is None:
        fields["train_split"] = "train800val200"
    return node(OmegaConf.create(fields), Dataset, "dataset")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_builds_the_dataset_of_its_name(preset):
    dataset = build(preset)
    assert dataset.name == {"timm": "torch/cifar100"}.get(preset.stem, preset.stem)
    assert set(OmegaConf.load(preset)) - {"_target_"} == {field.name for field in fields(dataset)}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_opens_with_purpose_command_and_source(preset):
    lines = preset.read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:3])
    assert f"dataset={preset.stem}" in lines[1]
    assert lines[2].startswith("# Numbers: ")


def test_every_bundled_and_generated_dataset_has_a_preset():
    assert {*FILES, *TASKS} <= {preset.stem for preset in PRESETS}
