"""BatchNorm that learns its statistics: torch's rule, and every stage carries what it learned."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from pear_cli.adapters.linear import LinearProbe
from pear_cli.adapters.sppara import SPPaRA
from pear_cli.audit.finding import Verdict
from pear_cli.audit.perform import audit
from pear_cli.backbone import backbones, batch_norm
from pear_cli.backbone.widths import Side
from pear_cli.config.choices import BatchNorm
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError
from pear_cli.experiment.lineage import Lineage
from pear_cli.experiment.read import read
from pear_cli.export import load as api
from pear_cli.export import merged
from pear_cli.export.writing import export
from pear_cli.launch.composing import composed
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.model.load import load_model
from pear_cli.model.merge import merge, settle_biases
from pear_cli.report.analysis.protocol import notes
from pear_cli.stages.perform import perform_all
from pear_cli.training.engine import Trainer

THIN = {"channels": [8, 8, 12, 16], "layers": [1, 1, 1, 1], "zero_init_last": False, "img_size": 32}
RESNET = Backbone("resnet18", False, None, 0, 0.0, (0.5,) * 3, (0.5,) * 3, THIN, BatchNorm.train)
SPLORA = ("method=splora", "method.rank=2", "method.slots=[conv1,conv2,downsample]", "prune.scope=slot")
FULL = ("method=full", "score=channel", "prune.scope=slot")
WORDS = (
    *("dataset=digits", "backbone=timm", "backbone.name=resnet18", "backbone.pretrained=false"),
    *(f"backbone.args.{name}={value}".replace(" ", "") for name, value in THIN.items()),
    *("backbone.mean=[0.5,0.5,0.5]", "backbone.std=[0.5,0.5,0.5]", "backbone.batch_norm=train"),
    *("optim.epochs=2", "optim.batch_size=250", "optim.lr=1e-2", "score.batches=1", "score.batch_size=50"),
    *("runtime.threads=1", "runtime.device=cpu", "prune.ratio=0.5"),
)


def experiment(*words):
    return read(composed([*WORDS, *words]))


def statistics(model):
    return {name: tensor.clone() for name, tensor in batch_norm.statistics(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module", params=[SPLORA, FULL], ids=["splora", "full"])
def run(request, tmp_path_factory):
    """The artifacts of a whole experiment by step, the experiment and its store."""
    from pear_cli.store.store import Store

    whole, store = experiment(*request.param), Store(tmp_path_factory.mktemp("run") / "store")
    outcomes = perform_all(whole, store)
    made = {name: outcome.artifact for name, outcome in zip(whole.plan, outcomes, strict=True)}
    return whole, store, made


def test_running_statistics_move_by_momentum_to_those_of_the_batch():
    model = models.create(RESNET, LinearProbe(lr=1.0, slots=()), 3, seed=0)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    norm, seen = model.bn1, []
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model.train()
    model(x), model(2 * x)
    mean, variance = torch.zeros(64), torch.ones(64)
    for inputs in seen:  # B, C, H, W
        mean = 0.9 * mean + 0.1 * inputs.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * inputs.var((0, 2, 3), unbiased=True)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.num_batches_tracked == 2


@pytest.mark.parametrize("choice", BatchNorm)
def test_a_trained_epoch_is_torchs_own(choice):
    ours = models.create(replace(RESNET, batch_norm=choice), LinearProbe(lr=1.0, slots=()), 3, seed=0)
    theirs = backbones.build(replace(RESNET, batch_norm=BatchNorm.frozen), 3).train()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours.train()
    ours(x), theirs(x)
    now, expected = dict(ours.named_buffers()), dict(theirs.named_buffers())
    assert all(torch.equal(now[name], expected[name]) for name in expected) == (choice is BatchNorm.train)
    assert bool(batch_norm.statistics(ours)) == (choice is BatchNorm.train)


def test_a_backbone_without_batch_norm_is_refused():
    vit = Backbone("vit_tiny_patch16_224", False, None, 0, 0.0, None, None, {"depth": 1}, BatchNorm.train)
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224 has no BatchNorm; leave it at frozen"):
        backbones.build(vit, 2)


def test_a_single_image_without_variance_is_told_before_training():
    model = models.create(RESNET, LinearProbe(lr=1.0, slots=()), 3, seed=0)
    with pytest.raises(ConfigError, match="of 33 images the last batch has one image, a single value a cha"):
        batch_norm.check_batches(model, 32, 33, 8)
    with pytest.raises(ConfigError, match=r"each batch has one image, .* layer4.0.bn1, which has no varia"):
        batch_norm.check_batches(model, 32, 32, 1)
    batch_norm.check_batches(model, 32, 34, 8)
    batch_norm.check_batches(model, 64, 33, 8)  # the last map has 2 × 2 values
    batch_norm.check_batches(models.create(replace(RESNET, batch_norm=BatchNorm.frozen),
                                           LinearProbe(lr=1.0, slots=()), 3, seed=0), 32, 33, 8)  # fmt: skip
    model.train()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model(torch.zeros(1, 3, 32, 32))  # what torch would say amid an epoch


def test_only_what_has_an_effect_enters_keys():
    plain, learned = experiment("backbone.batch_norm=frozen"), experiment()
    assert plain.plan["train"].key != learned.plan["train"].key
    assert "batch_norm" not in plain.plan["train"].config["backbone"]
    assert learned.plan["train"].config["backbone"]["batch_norm"] == "train"


def test_statistics_are_stored_and_counted_but_not_trained(run):
    _, _, made = run
    for name in ("train", "checkpoint", "adapt"):
        model, described = load_model(made[name])
        assert described.backbone.batch_norm is BatchNorm.train
        assert not model.training
        kept = {f"backbone.{path}": tensor for path, tensor in statistics(model).items()}
        assert same(kept, {path: made[name].tensors("adapters")[path] for path in kept})
        stated, numbers = made[name].manifest["accounting"], sum(t.numel() for t in kept.values())
        assert stated["stored_params"] - stated["trainable_params"] == numbers
        assert stated["stored_bytes"] > 4 * stated["trainable_params"] + 4 * numbers
    fresh = statistics(models.whole(described))
    assert not same(fresh, statistics(load_model(made["train"])[0]))


def test_pruning_keeps_the_statistics_of_the_channels_that_are_left(run):
    _, _, made = run
    wide, narrow = (load_model(made[name]) for name in ("train", "checkpoint"))
    kept = narrow[1].built_widths().kept
    before, after = statistics(wide[0]), statistics(narrow[0])
    lost = 0
    for path, tensor in after.items():
        line = kept.get(path.rpartition(".")[0], {}).get(Side.out) if tensor.ndim else None
        assert torch.equal(tensor, before[path] if line is None else before[path][line])
        lost += line is not None
    assert lost


def test_logits_after_pruning_are_those_of_zeroed_channels(run):
    _, _, made = run
    (wide, _), (narrow, described) = (load_model(made[name]) for name in ("train", "checkpoint"))
    zeroed = merge(wide)
    for module, sides in described.built_widths().kept.items():
        if Side.out in sides:
            for parameter in zeroed.get_submodule(module).parameters():
                parameter.data[~sides[Side.out]] = 0
            if isinstance(zeroed.get_submodule(module), nn.BatchNorm2d):
                zeroed.get_submodule(module).running_mean[~sides[Side.out]] = 7.0  # of no use any more
    torch.testing.assert_close(models.probe(narrow, 32), models.probe(zeroed, 32), atol=1e-4, rtol=0)


def test_scoring_leaves_the_statistics_and_adaptation_moves_them(run):
    _, _, made = run
    trained, pruned, adapted = (statistics(load_model(made[n])[0]) for n in ("train", "checkpoint", "adapt"))
    counts = [
        {int(t) for name, t in found.items() if name.endswith("num_batches_tracked")}
        for found in (trained, pruned, adapted)
    ]
    assert counts == [{8}, {8}, {16}]  # two epochs of four batches, twice; no scoring between
    assert not any(torch.equal(adapted[name], pruned[name]) for name in adapted)


def test_an_exported_file_and_a_merged_one_have_them(run, tmp_path):
    whole, _, made = run
    file = export(made["adapt"].path, tmp_path / "task.safetensors")
    expected = statistics(load_model(made["adapt"])[0])
    assert same(statistics(api.load(file)), expected)
    assert api.evaluate(file, whole.dataset, whole.runtime)["accuracy"] == pytest.approx(
        made["eval"].manifest["metrics"]["accuracy"]
    )
    merged.export(made["train"].path, tmp_path / "merged.safetensors")
    (model, _), args = load_model(made["train"]), {k: v for k, v in THIN.items() if k != "img_size"}
    alone = timm.create_model(
        "resnet18", num_classes=10, checkpoint_path=str(tmp_path / "merged.safetensors"), **args
    )
    torch.testing.assert_close(models.probe(alone, 32), models.probe(model, 32), atol=1e-4, rtol=0)
    known = statistics(model)
    moved = {name for name in known if not torch.equal(alone.get_buffer(name), known[name])}
    biased = bool(whole.method.slots)  # of the convolutions, which have none in timm
    assert {name.rpartition(".")[2] for name in moved} == ({"running_mean"} if biased else set())


def test_a_bias_that_no_norm_can_hold_is_refused():
    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 32, "qkv_bias": False}
    config = Backbone("vit_tiny_patch16_224", False, None, 0, 0.0, None, None, vit)
    model = models.create(config, SPPaRA(lr=1.0, slots=("attn.qkv",)), 3, seed=0)
    with pytest.raises(ConfigError, match=r"blocks.0.attn.qkv has no bias in timm, and no BatchNorm follows"):
        settle_biases(merge(model), model)


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from pear_cli.store.store import Store

    whole, once = experiment("method=linear"), Store(tmp_path / "once")
    made = {n: o.artifact for n, o in zip(whole.plan, perform_all(whole, once), strict=True)}
    undisturbed, calls = Trainer.epoch, []

    def killed(self, epoch, *watch):
        if epoch == 2 and not calls:
            calls.append(epoch)
            raise KeyboardInterrupt
        return undisturbed(self, epoch, *watch)

    monkeypatch.setattr(Trainer, "epoch", killed)
    again = Store(tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        perform_all(whole, again)
    resumed = {n: o.artifact for n, o in zip(whole.plan, perform_all(whole, again), strict=True)}
    assert resumed["train"].read("adapters.safetensors") == made["train"].read("adapters.safetensors")
    assert not same(statistics(load_model(made["train"])[0]), statistics(backbones.build(RESNET, 10)))


def test_a_description_from_before_the_setting_is_read(run):
    _, _, made = run
    stored = made["train"].json("model")
    assert stored["backbone"].pop("batch_norm") == "train"
    older = Description.from_json(stored)
    assert older.backbone.batch_norm is BatchNorm.frozen
    assert "batch_norm" not in older.to_json()["backbone"]


def test_evaluations_that_differ_in_it_are_not_comparable(run):
    _, store, made = run
    learned, frozen = (Lineage.from_artifact(made["eval"], store.find) for _ in range(2))
    del frozen.config["backbone"]["batch_norm"]
    assert learned.setting("backbone.batch_norm") == "train"
    assert notes([learned]) == []
    assert notes([learned, frozen]) == [
        "evaluations of digits are not comparable: backbone.batch_norm (frozen, train)"
    ]


@pytest.mark.parametrize("words", [SPLORA, FULL, ("method=linear",)], ids=["splora", "full", "linear"])
@pytest.mark.parametrize("choice", ["train", "frozen"])
def test_an_audit_passes(words, choice):
    found = dict(audit(experiment(*words, f"backbone.batch_norm={choice}")))
    assert not {name: f.meaning for name, f in found.items() if f.verdict is Verdict.failed}
