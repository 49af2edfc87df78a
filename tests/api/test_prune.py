"""Scoring, pruning and sharing in a loop of one's own, as the stages do it; and what an optimizer keeps."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pear_cli
from pear_cli.errors import ConfigError, DataError
from pear_cli.model import models
from pear_cli.pruning.mask import Mask
from pear_cli.pruning.share_map import ShareMap
from tests.api.conftest import ARGS, train
from tests.api.test_attach import NAMES, same, state


@pytest.fixture
def trained(backbone, batch):
    """A trained model, its handle and its optimizer."""

    def make(method="lora", **settings):
        model = backbone()
        adapted = pear_cli.attach(model, method, create_args=ARGS, **{"rank": 2} | settings)
        return model, adapted, train(model, adapted, batch)

    return make


def test_scores_are_those_of_one_batch_or_many_and_leave_no_trace(trained, batch):
    model, adapted, _ = trained()
    before = state(model)
    loader = DataLoader(TensorDataset(*batch), batch_size=4)
    found = adapted.score(loader)
    assert len(found.units) == 8
    assert found.images == 12
    assert adapted.score(iter(list(loader))) == found
    assert adapted.score(loader, criterion="magnitude") != found
    assert same(state(model), before)


def test_the_loss_is_the_callers(trained, batch):
    _, adapted, _ = trained()

    def twice(logits, labels):
        return 2 * nn.functional.cross_entropy(logits, labels)

    one, two = adapted.score([batch]), adapted.score([batch], loss=twice)
    torch.testing.assert_close(torch.tensor(two.scores), 2 * torch.tensor(one.scores))


@pytest.mark.parametrize(
    ("batches", "settings", "error", "said"),
    [
        ([], {}, DataError, "no calibration images"),
        ([torch.zeros(2, 3, 32, 32)], {}, DataError, r"batches of \(images, labels\)"),
        ([{"x": 1}], {}, DataError, r"batches of \(images, labels\)"),
        (None, {"criterion": "tailor"}, ConfigError, 'unknown; did you mean "taylor"'),
        (None, {"batch_size": 3}, ConfigError, "the batches have their own"),
        (None, {"unit": "block"}, ConfigError, "score.unit = block: LoRA has none; its units: adapter"),
        (None, {"unit": "channel"}, ConfigError, "score.unit = channel: LoRA has none"),
    ],
)
def test_what_cannot_be_scored_is_refused(trained, batch, batches, settings, error, said):
    _, adapted, _ = trained()
    with pytest.raises(error, match=said):
        adapted.score([batch] if batches is None else batches, **settings)


@pytest.mark.parametrize("knowledge", ["none", "frozen", "int8", "lowrank", "absorb"])
@pytest.mark.parametrize("share", ["none", "top", "ranked", "nearest", "similar"])
def test_a_shared_model_comes_back_from_its_file(trained, backbone, batch, tmp_path, share, knowledge):
    model, adapted, optimizer = trained()
    importance = adapted.score([batch])
    kept = {"kind": knowledge, "rank": 1} if knowledge == "lowrank" else knowledge
    if (share, knowledge) == ("none", "absorb"):
        with pytest.raises(ConfigError, match="needs an owner"):
            adapted.prune(importance, 0.5, share=share, knowledge=kept, optimizer=optimizer)
        return
    found = adapted.prune(importance, 0.5, share=share, knowledge=kept, optimizer=optimizer)
    assert isinstance(found, ShareMap)
    assert adapted.share_map == found
    assert len(found.pruned) == 4
    train(model, adapted, batch, optimizer=optimizer)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    other = pear_cli.load(file, backbone=backbone(5))
    torch.testing.assert_close(other(batch[0]), model(batch[0]))
    assert pear_cli.adapted(other).share_map.owners == found.owners


def test_the_stages_and_the_library_share_alike(trained, batch):
    model, adapted, _ = trained()
    importance = adapted.score([batch])
    dense = model(batch[0])
    adapted.prune(importance, 0.0)
    torch.testing.assert_close(model(batch[0]), dense)


def held(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("unit", ["adapter", "head", "rank"])
def test_an_optimizer_loses_what_is_pruned_and_keeps_the_state_of_the_rest(backbone, batch, kind, unit):
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    model = backbone()
    adapted = pear_cli.attach(model, "lora", rank=2)
    optimizer = kind(adapted.parameters(), lr=1e-2, **settings)
    train(model, adapted, batch, optimizer=optimizer)
    before = {name: (p, dict(optimizer.state[p])) for name, p in models.trained(model).items()}
    adapted.prune(adapted.score([batch], unit=unit), 0.5, optimizer=optimizer)
    now = models.trained(model)
    assert {id(p) for p in held(optimizer)} == {id(p) for p in now.values()}
    assert len(held(optimizer)) == len(now)
    assert set(optimizer.state) == set(now.values())
    for name, parameter in now.items():
        _, memory = before[name]
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor) and value.ndim:
                assert value.shape == parameter.shape
                if value.shape == memory[key].shape:
                    assert torch.equal(value, memory[key])
    train(model, adapted, batch, optimizer=optimizer)


def test_learned_betas_and_parameters_of_others_stay_in_the_groups(trained, batch):
    model, adapted, _ = trained()
    extra = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW(
        [{"params": [extra], "lr": 1.0}, {"params": adapted.parameters(), "weight_decay": 0.1}]
    )
    adapted.prune(
        adapted.score([batch]), 0.5, knowledge={"kind": "frozen", "learn_beta": True}, optimizer=optimizer
    )
    assert optimizer.param_groups[0]["params"] == [extra]
    betas = [p for name, p in models.trained(model).items() if name.endswith(".beta")]
    assert len(betas) == 4
    assert {id(b) for b in betas} <= {id(p) for p in optimizer.param_groups[1]["params"]}


@pytest.mark.parametrize("unit", ["head", "rank"])
def test_parts_of_adapters_are_masked_and_come_back(trained, backbone, batch, tmp_path, unit):
    model, adapted, _ = trained()
    effect = {"effect": "attention"} if unit == "head" else {}
    found = adapted.prune(adapted.score([batch], unit=unit), 0.5, **effect)
    assert isinstance(found, Mask)
    assert adapted.share_map is None
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    other = backbone(5)
    before = state(other)
    torch.testing.assert_close(pear_cli.load(file, backbone=other)(batch[0]), model(batch[0]))
    pear_cli.adapted(other).remove()
    assert same(state(other), before)


@pytest.mark.parametrize(
    ("method", "unit", "settings"),
    [
        ("splora", "channel", {}),
        ("full", "channel", {"rank": None}),
        ("splopa", "block", {"block": [8, 8], "prototypes": 2, "rank": 1}),
    ],
)
def test_a_pruned_backbone_comes_back_whole(backbone, batch, tmp_path, method, unit, settings):
    model = backbone()
    before, logits = state(model), model(batch[0])
    given = {name: value for name, value in ({"rank": 2} | settings).items() if value is not None}
    adapted = pear_cli.attach(model, method, **given)
    optimizer = train(model, adapted, batch, lr=1e-3)
    adapted.prune(adapted.score([batch], unit=unit), 0.5, optimizer=optimizer, scope="slot")
    train(model, adapted, batch, optimizer=optimizer)
    file = adapted.save(tmp_path / "m.safetensors", classes=NAMES)
    other = backbone(5)
    untouched = state(other)
    torch.testing.assert_close(pear_cli.load(file, backbone=other)(batch[0]), model(batch[0]))
    pear_cli.adapted(other).remove()
    assert same(state(other), untouched)
    adapted.remove()
    assert same(state(model), before)
    assert torch.equal(model(batch[0]), logits)
    assert (model.blocks[0].attn.num_heads, model.blocks[0].mlp.fc1.out_features) == (4, 128)


def test_what_cannot_be_pruned_is_refused_and_nothing_changes(trained, backbone, batch):
    model, adapted, optimizer = trained()
    importance = adapted.score([batch])
    other = pear_cli.attach(backbone(), "lora", rank=2, slots=["attn.proj"]).score([batch])
    heads = adapted.score([batch], unit="head")
    before, groups = state(model), held(optimizer)
    for scored, ratio, settings, said in (
        (importance, 1.0, {}, "prune.ratio = 1.0"),
        (importance, 0.5, {"share": "rankd"}, 'did you mean "ranked"'),
        (importance, 0.5, {"knowledge": "frozn"}, 'did you mean "frozen"'),
        (importance, 0.5, {"scop": "slot"}, "no setting 'scop'"),
        (other, 0.5, {}, "of another model"),
        (heads, 0.5, {"share": "top"}, "pruned heads are neither shared nor kept"),
    ):
        with pytest.raises(ConfigError, match=said):
            adapted.prune(scored, ratio, optimizer=optimizer, **settings)
    assert same(state(model), before)
    assert [id(p) for p in held(optimizer)] == [id(p) for p in groups]
    adapted.prune(importance, 0.5)
    with pytest.raises(ConfigError, match="pruned already"):
        adapted.prune(importance, 0.5)


def test_a_pruned_copy_leaves_the_original_dense(trained, batch):
    model, adapted, _ = trained()
    importance, dense = adapted.score([batch]), model(batch[0])
    copied = pear_cli.adapted(copy.deepcopy(model))
    copied.prune(importance, 0.5, knowledge="none", share="none")
    assert adapted.share_map is None
    assert torch.equal(model(batch[0]), dense)
    assert not torch.allclose(copied.model(batch[0]), dense)
