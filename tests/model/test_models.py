"""An adapted model is made again from its description, or refused."""

import dataclasses

import pytest
import torch

from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.model import models
from pear_cli.model.load import load_model
from pear_cli.model.rebuild import rebuild


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


MASK = {"effect": "adapter", "gone": {}, "notes": []}
WRONG = [
    ("backbone.std", [0.0, 0.5, 0.5], r"backbone\.std = 0\.0 is out of range"),
    ("backbone.seed", "1", r"model\.backbone\.seed = '1' should be 1"),
    ("backbone.args.img_size", float("nan"), r"model\.backbone\.args\.img_size = nan is not a finite number"),
    ("backbone.checkpoint", "x", r"model\.backbone has no setting 'checkpoint'"),
    ("weights", 5, r"model\.weights = 5 should be '5'"),
    ("method.rank", "2", r"model\.method\.rank = '2' should be 2"),
    ("method.lr", 0.1, r"model\.method\.lr = 0\.1"),
    ("method.slots", [["attn.q"]], r"model\.method\.slots = .* is not a plain list"),
    ("classes", "ab", r"model\.classes = ab is not a list"),
    ("classes", [0, 1], r"model\.classes = \[0, 1\] should be \['0', '1'\]"),
    ("classes", ["a", "b", "a"], r"model\.classes = \['a'\] is out of range: each class once"),
    ("classes", ["a"], r"model\.classes = \('a',\) is out of range: two or more"),
    ("size", 0, r"model\.size = 0 is out of range"),
    ("size", True, r"model\.size = True is not a whole number"),
    ("timm", None, r"model\.timm = null is not text"),
    ("owners", {"a": ["a"]}, r"model\.owners\.a = \['a'\] is not text"),
    ("knowledge.rank", 10**9, r"knowledge\.rank = 1000000000 is out of range"),
    ("knowledge.rank", 1e9, r"model\.knowledge\.rank = 1000000000\.0 is not a whole number"),
    ("knowledge.beta", float("inf"), r"model\.knowledge\.beta = inf is not a finite number"),
    ("knowledge.kind", "absorb", r"knowledge\.kind = absorb"),
    ("mask", {"unit": "adapter", **MASK}, r"not a mask: adapters have a share map"),
    ("mask", {"unit": "rank", **MASK, "gone": "x"}, r"model\.mask\.gone"),
    ("extra", 1, r"model has no setting 'extra'"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{key}={v}" for key, v, _ in WRONG])
def test_a_field_of_a_description_that_is_wrong_is_named(finished, key, value, message):
    description = described(finished)
    *groups, name = key.split(".")
    place = description
    for group in groups:
        place = place[group]
    place[name] = value
    with pytest.raises(CorruptArtifact, match=f"not the description of a model of pear: {message}"):
        models.Description.from_json(description)


def test_a_rank_of_the_knowledge_above_that_of_the_method_is_refused(finished):
    value = described(finished)
    value["knowledge"] |= {"kind": "lowrank", "rank": 3}
    with pytest.raises(CorruptArtifact, match=r"knowledge\.rank = 3 is out of range: at most 2"):
        models.Description.from_json(value)


def test_what_the_description_does_not_have_is_refused(finished):
    adapt, value = finished.made["adapt"], described(finished)
    tensors = adapt.tensors("adapters"), adapt.tensors("knowledge")
    with pytest.raises(CorruptArtifact, match=r"model\.size = 1024, but its backbone reads 16"):
        rebuild(models.Description.from_json(value | {"size": 1024}), *tensors)
    with pytest.raises(CorruptArtifact, match="but no knowledge is described"):
        rebuild(models.Description.from_json(value | {"knowledge": None}), *tensors)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("int8", lambda tensor: {}, r"knowledge\.kind = int8, but .* is torch\.float32"),
        ("frozen", lambda tensor: {"": tensor.to(torch.int8)}, "kind = frozen, but .* is torch.int8"),
        ("frozen", lambda tensor: {".scale": torch.ones(1, 1)}, "torch.float32 with a scale"),
        ("lowrank", lambda tensor: {}, r"knowledge\.rank = 1, but .*\.down has rank 2"),
    ],
)
def test_kept_tensors_in_another_form_than_described_are_refused(finished, kind, change, message):
    adapt, value = finished.made["adapt"], described(finished)
    value["knowledge"]["kind"] = kind
    kept = adapt.tensors("knowledge")
    name, tensor = next((name, tensor) for name, tensor in kept.items() if name.endswith(".down"))
    kept |= {name + suffix: changed for suffix, changed in change(tensor).items()}
    with pytest.raises(CorruptArtifact, match=message):
        rebuild(models.Description.from_json(value), adapt.tensors("adapters"), kept)


def test_a_method_of_somebody_else_is_refused(finished):
    value = described(finished)
    value["method"]["_target_"] = "os.system"
    with pytest.raises(CorruptArtifact, match=r"os\.system is refused"):
        models.Description.from_json(value)


def test_other_frozen_weights_are_refused(finished):
    description = models.Description.from_json(described(finished))
    other = dataclasses.replace(description, weights="0" * 64)
    with pytest.raises(ConfigError, match="are others than this model was adapted on"):
        rebuild(other, {}, {})


def test_tensors_of_another_model_are_refused(finished):
    adapt = finished.made["adapt"]
    description = models.Description.from_json(described(finished))
    stored = adapt.tensors("adapters")
    with pytest.raises(CorruptArtifact, match="not those of this model"):
        rebuild(description, dict(list(stored.items())[1:]), adapt.tensors("knowledge"))
    name = "head.weight"
    with pytest.raises(CorruptArtifact, match=r"head\.weight is \(1, 1\)"):
        rebuild(description, stored | {name: stored[name][:1, :1]}, adapt.tensors("knowledge"))


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
        rebuild(models.Description.from_json(value), adapt.tensors("adapters"), {})
