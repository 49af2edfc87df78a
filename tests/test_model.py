"""An adapted model is made again from its description, or refused."""

import dataclasses

import pytest
import torch

from pear_cli import model as models
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.stages.base import load_model


def described(finished):
    return finished.made["adapt"].json("model")


def test_a_description_survives_json(finished):
    value = described(finished)
    again = models.Description.from_json(value)
    assert models.Description.from_json(again.to_json()) == again


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": {"name": "x"}},
        {"classes": None},
        {"normalization": "imagnet"},
        {"owners": [1]},
        {"knowledge": {"kind": "frozen"}},
        {"size": "wide"},
    ],
)
def test_a_description_that_is_not_one_is_refused(finished, change):
    with pytest.raises(CorruptArtifact, match="not the description of a model"):
        models.Description.from_json(described(finished) | change)


def test_a_method_of_somebody_else_is_refused(finished):
    value = described(finished)
    value["method"]["_target_"] = "os.system"
    with pytest.raises(ConfigError, match=r"os\.system is refused"):
        models.rebuild(models.Description.from_json(value), {}, {})


def test_other_frozen_weights_are_refused(finished):
    description = models.Description.from_json(described(finished))
    other = dataclasses.replace(description, weights="0" * 64)
    with pytest.raises(ConfigError, match="are others than this model was adapted on"):
        models.rebuild(other, {}, {})


def test_tensors_of_another_model_are_refused(finished):
    adapt = finished.made["adapt"]
    description = models.Description.from_json(described(finished))
    stored = adapt.tensors("adapters")
    with pytest.raises(CorruptArtifact, match="not those of this model"):
        models.rebuild(description, dict(list(stored.items())[1:]), adapt.tensors("knowledge"))
    name = "head.weight"
    with pytest.raises(CorruptArtifact, match=r"head\.weight is \(1, 1\)"):
        models.rebuild(description, stored | {name: stored[name][:1, :1]}, adapt.tensors("knowledge"))


def test_logits_that_changed_name_both_versions_of_timm(finished):
    model, description = load_model(finished.made["adapt"])
    stored = finished.made["adapt"].tensors("probe")["logits"]
    models.check_probe(model, description, stored)
    old = dataclasses.replace(description, timm="0.0.1")
    with pytest.raises(CorruptArtifact, match=r"made with timm 0\.0\.1, this is timm \d"):
        models.check_probe(model, old, stored + 0.01)


def test_the_probe_does_not_depend_on_the_random_state(finished):
    model, description = load_model(finished.made["train"])
    one = models.probe(model, description.size)
    torch.manual_seed(5)
    assert torch.equal(one, models.probe(model, description.size))


@pytest.mark.parametrize("owner", ["blocks.0.attn.v", "blocks.9.attn.q"])
def test_a_share_map_across_slots_or_to_nobody_is_refused(finished, owner):
    adapt = finished.made["adapt"]
    value = described(finished)
    value["owners"] = dict.fromkeys(value["owners"]) | {
        "blocks.0.attn.v": "blocks.0.attn.v",
        "blocks.1.attn.q": owner,
    }
    with pytest.raises(CorruptArtifact, match=rf"lets {owner} serve at blocks\.1\.attn\.q"):
        models.rebuild(models.Description.from_json(value), adapt.tensors("adapters"), {})
