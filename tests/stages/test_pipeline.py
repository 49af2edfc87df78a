"""The six stages on a tiny model: what holds between one stage and the next."""

import itertools
import re
from contextlib import nullcontext

import pytest
import torch
from PIL import Image

from pear_cli.backbone.widths import Side, Widths
from pear_cli.data.loading import load
from pear_cli.errors import ConfigError, CorruptArtifact, DataError, MissingArtifact, TrainingError
from pear_cli.export import load as api
from pear_cli.export import merged
from pear_cli.export.writing import export
from pear_cli.model import models
from pear_cli.model.load import load_model
from pear_cli.model.merge import merge
from pear_cli.stages import perform as performing
from pear_cli.stages.perform import perform, perform_all
from pear_cli.system import progress
from pear_cli.training.engine import Trainer


def artifacts(experiment, store):
    names = [name for name in performing.ORDER if name in experiment.plan]
    return dict(zip(names, (outcome.artifact for outcome in perform_all(experiment, store)), strict=True))


def test_a_whole_run_ends_in_an_evaluation_and_a_second_run_reuses_every_stage(make, store):
    first = perform_all(make(), store)
    assert [outcome.reused for outcome in first] == [False] * 6
    assert 0 <= first[-1].artifact.manifest["metrics"]["accuracy"] <= 1
    assert [outcome.reused for outcome in perform_all(make(), store)] == [True] * 6


def test_a_sweep_over_ratios_trains_and_scores_once(make, store):
    ratios = [perform_all(make(prune__ratio=ratio), store) for ratio in (0, 0.25, 0.5, 0.75)]
    assert [[o.reused for o in outcomes[:2]] for outcomes in ratios[1:]] == [[True, True]] * 3
    assert len({outcomes[-1].artifact.key for outcomes in ratios}) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"prune__ratio": 0},
        {"prune__ratio": 0.5, "share__rule": "none", "knowledge__kind": "frozen"},
    ],
    ids=["ratio 0", "knowledge alone"],
)
def test_right_after_pruning_the_logits_equal_the_dense_ones(make, store, changes):
    made = artifacts(make(**changes), store)
    dense, checkpoint = (made[name].tensors("probe")["logits"] for name in ("train", "checkpoint"))
    torch.testing.assert_close(checkpoint, dense, atol=1e-5, rtol=0)


def test_pruning_alone_does_change_the_logits(make, store):
    made = artifacts(make(share__rule="none", knowledge__kind="none"), store)
    dense, checkpoint = (made[name].tensors("probe")["logits"] for name in ("train", "checkpoint"))
    assert (checkpoint - dense).abs().max() > 1e-4


def test_a_shared_adapter_is_stored_once_and_loads_as_one_object(make, store):
    adapt = artifacts(make(prune__ratio=0.5), store)["adapt"]
    model, description = load_model(adapt)
    shared = [site for site, owner in description.owners.items() if owner != site]
    assert shared
    for site in shared:
        owner = description.owners[site]
        here, home = models.adaptation(model).at(site, owner)
        assert here.owner is home.owner
        assert not [name for name in adapt.tensors("adapters") if name.startswith(f"adapter.{site}.")]
        assert adapt.tensors("knowledge")[f"{site}.down"].shape == (2, 16)


def test_a_loaded_model_repeats_the_logits_of_the_evaluation(make, store):
    experiment = make()
    made = artifacts(experiment, store)
    model, description = load_model(made["adapt"])
    from pear_cli.training import batches, engine

    images = load(experiment.dataset, "test", description.preparation)
    statistics = batches.statistics(model, description.normalization)
    batches = batches.Batches(images, statistics, torch.device("cpu"))
    again = engine.evaluate(model, batches, engine.device(experiment.runtime))
    torch.testing.assert_close(again.logits, made["eval"].tensors("predictions")["logits"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rule", ["none", "ranked"])
def test_every_trained_parameter_gets_a_gradient_after_sharing_and_the_backbone_none(make, store, rule):
    checkpoint = artifacts(make(share__rule=rule, knowledge__learn_beta=True), store)["checkpoint"]
    model, description = load_model(checkpoint)
    for parameter in models.trained(model).values():
        parameter.data.normal_()
    model(torch.randn(3, 3, description.size, description.size)).square().sum().backward()
    with_gradient = {id(p) for p in model.parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient == {id(p) for p in models.trained(model).values()}
    assert any(name.endswith(".beta") for name in models.trained(model))


def test_two_seeded_runs_are_equal_to_the_bit_and_another_seed_is_not(make, store, tmp_path):
    from pear_cli.store.store import Store

    one, again = artifacts(make(), store), artifacts(make(), Store(tmp_path / "other"))
    for name in one:
        assert one[name].manifest["files"] == again[name].manifest["files"], name
    other = artifacts(make(seed=1), store)
    assert one["train"].manifest["files"] != other["train"].manifest["files"]


@pytest.mark.parametrize("changes", [{}, {"select": "val"}], ids=["last", "val"])
@pytest.mark.parametrize("phase", ["train", "adapt"])
def test_training_that_was_cut_off_goes_on_as_if_it_never_had(
    make, store, tmp_path, monkeypatch, phase, changes
):
    from pear_cli.store.store import Store

    changes = {"optim__epochs": 3, "optim__adapt_epochs": 3, **changes}
    whole = artifacts(make(**changes), store)[phase]
    epoch, broken = Trainer.epoch, Store(tmp_path / "broken")

    def stop_at_the_third(self, index, *watch):
        if index == 2 and (self.phase == "shared") == (phase == "adapt"):
            raise KeyboardInterrupt
        return epoch(self, index, *watch)

    monkeypatch.setattr(Trainer, "epoch", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        artifacts(make(**changes), broken)
    seen = []
    monkeypatch.setattr(Trainer, "epoch", lambda self, *args: seen.append(args[0]) or epoch(self, *args))
    resumed = artifacts(make(**changes), broken)[phase]
    assert seen[0] == 2
    assert resumed.manifest["files"] == whole.manifest["files"]


def test_training_so_far_that_was_altered_is_not_resumed_but_begun_again(
    make, store, tmp_path, monkeypatch, capfd
):
    from pear_cli.store.store import Store

    experiment, epoch, broken = make(), Trainer.epoch, Store(tmp_path / "broken")
    whole = perform("train", experiment, store).artifact

    def stop_at_the_second(self, index, *watch):
        if index == 1:
            raise KeyboardInterrupt
        return epoch(self, index, *watch)

    monkeypatch.setattr(Trainer, "epoch", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        perform("train", experiment, broken)
    monkeypatch.setattr(Trainer, "epoch", epoch)
    (kept,) = broken.root.rglob("training.safetensors")
    content = bytearray(kept.read_bytes())
    content[-5] ^= 1  # of a weight
    kept.write_bytes(content)
    assert perform("train", experiment, broken).artifact.manifest["files"] == whole.manifest["files"]
    assert "training.safetensors is damaged; training starts again" in " ".join(
        capfd.readouterr().err.split()
    )


def test_a_damaged_test_image_is_found_before_anything_is_trained(make, store, tmp_path, monkeypatch):
    for part, name, value in itertools.product(("train", "test"), ("ant", "bee"), range(5)):
        path = tmp_path / "photos" / part / name / f"{value}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(path)
    path.write_bytes(path.read_bytes()[:50])
    photos = {
        "_target_": "pear_cli.data.folder.ImageFolder",
        "name": "photos",
        "root": str(tmp_path / "photos"),
    }
    monkeypatch.setattr(Trainer, "epoch", None)
    with pytest.raises(DataError, match=r"test/bee/4\.png cannot be read"):
        perform("train", make(dataset=photos), store)


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_epoch(make, store, monkeypatch):
    epoch = Trainer.epoch

    def break_the_second(self, index, *watch):
        if index == 1:
            self.trained["head.weight"].data.fill_(float("nan"))
        return epoch(self, index, *watch)

    monkeypatch.setattr(Trainer, "epoch", break_the_second)
    with pytest.raises(TrainingError, match="the loss is nan in epoch 2, update 1"):
        perform("train", make(), store)
    step = make().plan["train"]
    assert store.find(step.stage, step.key) is None
    monkeypatch.setattr(Trainer, "epoch", epoch)
    assert len(perform("train", make(), store).artifact.json("history")) == 2


def test_a_missing_stage_is_named_with_the_command_that_makes_it(make, store):
    with pytest.raises(MissingArtifact, match="nothing trained for this configuration yet; run: pear train"):
        perform("score", make(), store)
    with pytest.raises(MissingArtifact, match="run: pear run"):
        perform("eval", make(), store)


def test_validation_selects_the_earliest_best_epoch_and_the_oracle_is_labelled(make, store, capsys):
    history = perform("train", make(select="val", optim__epochs=4), store).artifact
    said = capsys.readouterr().err
    assert "training on 800 images; 200 validation images choose the epoch" in said
    assert re.search(r"accuracy train 0\.\d+ validation 0\.\d+", said)
    assert "val200" not in said
    scores = [record["val200_accuracy"] for record in history.json("history")]
    assert history.manifest["metrics"]["selected_epoch"] == scores.index(max(scores)) + 1
    oracle = perform_all(make(select="test_oracle"), store)[-1].artifact
    assert oracle.manifest["metrics"]["select"] == "test_oracle"


@pytest.mark.parametrize("target", ["linear.LinearProbe", "full.FullFineTuning"])
def test_a_method_without_adapters_trains_as_long_as_the_others_and_is_evaluated(make, store, target):
    method = {"_target_": f"pear_cli.adapters.{target}", "lr": 0.01, "slots": []}
    experiment = make(method=method)
    assert list(experiment.plan) == ["train", "eval"]
    train, evaluation = perform_all(experiment, store)
    assert train.artifact.manifest["metrics"]["epochs"] == 4
    model, _ = load_model(train.artifact)
    assert evaluation.artifact.manifest["accounting"]["trainable_params"] == sum(
        p.numel() for p in models.trained(model).values()
    )


def test_the_optimizer_state_of_kept_adapters_survives_pruning(make, store):
    made = artifacts(make(), store)
    dense, kept = (made[name].tensors("optimizer") for name in ("train", "checkpoint"))
    assert set(kept) < set(dense)
    assert all(torch.equal(kept[name], dense[name]) for name in kept)


@pytest.mark.parametrize("kind", ["none", "frozen", "lowrank", "int8", "absorb"])
def test_every_kind_of_knowledge_adapts_and_evaluates(make, store, kind):
    made = artifacts(make(knowledge__kind=kind), store)
    costs = made["checkpoint"].manifest["accounting"]
    assert costs["trainable_params_without_head"] == 4 * 2 * (16 + 16)
    assert ("knowledge.safetensors" in made["adapt"].manifest["files"]) == (
        kind in ("frozen", "lowrank", "int8")
    )
    kept = made["adapt"].tensors("knowledge") if kind in ("frozen", "lowrank", "int8") else {}
    for stage in ("checkpoint", "adapt"):
        costs = made[stage].manifest["accounting"]
        assert costs["knowledge_params"] == sum(tensor.numel() for tensor in kept.values())
        own = sum(tensor.numel() for tensor in made[stage].tensors("adapters").values())
        assert costs["stored_params"] == own + costs["knowledge_params"]


def test_an_altered_tensor_is_found_on_loading(make, store):
    train = perform("train", make(), store).artifact
    file = train.path / "adapters.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 16
    file.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"adapters\.safetensors"):
        perform("score", make(), store)


PARTS = {"share__rule": "none", "knowledge__kind": "none"}


@pytest.mark.parametrize(
    "changes",
    [
        {"score__unit": "head"},
        {"score__unit": "head", "prune__effect": "attention", "score__view": "output"},
        {"score__unit": "head", "prune__scope": "block", "score__view": "weight"},
        {"score__unit": "rank", "prune__ratio": 0.75},
        {"score__unit": "rank", "prune__by": "parameters", "optim__optimizer_state": "reset"},
    ],
    ids=str,
)
def test_heads_and_ranks_are_pruned_stored_without_zeros_and_adapt_on(make, store, changes):
    made = artifacts(make(**PARTS, **changes), store)
    dense, pruned, adapted = (made[name] for name in ("train", "checkpoint", "adapt"))
    for artifact in (pruned, adapted):
        size = sum(tensor.numel() for tensor in artifact.tensors("adapters").values())
        assert size == artifact.manifest["accounting"]["stored_params"]
        assert size < dense.manifest["accounting"]["stored_params"]
        assert all(t.count_nonzero() for n, t in artifact.tensors("adapters").items() if n != "head.bias")
    kept = set(pruned.tensors("optimizer"))
    assert {name.rpartition("::")[0] for name in kept} == set(pruned.tensors("adapters"))
    model, _ = load_model(adapted)
    torch.testing.assert_close(models.probe(model, 16), adapted.tensors("probe")["logits"])
    before, after = (a.tensors("adapters") for a in (pruned, adapted))
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_pruning_no_head_changes_no_logit(make, store):
    made = artifacts(make(**PARTS, score__unit="head", prune__ratio=0), store)
    dense, checkpoint = (made[name].tensors("probe")["logits"] for name in ("train", "checkpoint"))
    torch.testing.assert_close(checkpoint, dense, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score__unit": "head"}, "only whole adapters are shared and kept"),
        ({"score__unit": "head", "method__slots": ["mlp.fc1"]}, "needs one of the method.slots attn.q"),
        ({"score__unit": "rank", "share__rule": "none"}, "only whole adapters are shared and kept"),
        ({"prune__effect": "attention"}, "it needs score.unit=head"),
    ],
)
def test_units_that_cannot_be_shared_are_refused_before_anything_runs(make, changes, words):
    with pytest.raises(ConfigError, match=words):
        make(**changes)


SPLORA = {
    "_target_": "pear_cli.adapters.splora.SPLoRA",
    "lr": 0.01,
    "rank": 2,
    "slots": ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"],
}
FULL = {"_target_": "pear_cli.adapters.full.FullFineTuning", "lr": 0.01, "slots": []}


@pytest.mark.parametrize("method", [SPLORA, FULL], ids=["splora", "full"])
@pytest.mark.parametrize(
    "criterion", ["taylor", "magnitude", "gradient", "fisher", "random", "group_magnitude", "group_taylor"]
)
def test_pruned_channels_leave_a_smaller_network_that_goes_on_training(make, store, method, criterion):
    changes = {"score__unit": "channel", "score__criterion": criterion, "prune__scope": "slot"}
    made = artifacts(make(**PARTS, **changes, method=method), store)
    dense, pruned, adapted = (made[name] for name in ("train", "checkpoint", "adapt"))
    whole, (model, _) = load_model(dense)[0], load_model(adapted)
    for block, before in zip(model.blocks, whole.blocks, strict=True):
        assert block.attn.num_heads <= before.attn.num_heads
        assert block.mlp.fc1.out_features == block.mlp.fc2.in_features == len(block.mlp.fc1.bias)
    hidden = [sum(b.mlp.fc1.out_features for b in m.blocks) for m in (model, whole)]
    assert hidden[0] == hidden[1] / 2
    costs = [a.manifest["accounting"] for a in (dense, adapted)]
    assert costs[1]["stored_params"] < costs[0]["stored_params"]
    assert costs[1]["macs_per_image"] < 0.75 * costs[0]["macs_per_image"]
    state, tensors = pruned.tensors("optimizer"), pruned.tensors("adapters")
    assert all(t.shape == tensors[n.rpartition("::")[0]].shape for n, t in state.items() if t.ndim)
    torch.testing.assert_close(models.probe(model, 16), adapted.tensors("probe")["logits"])


def test_a_narrow_networks_logits_are_those_of_the_zeroed_dense_one(make, store):
    made = artifacts(make(**PARTS, score__unit="channel", prune__scope="slot", method=SPLORA), store)
    (whole, _), (model, description) = load_model(made["train"]), load_model(made["checkpoint"])
    masked = merge(whole)
    for module, sides in Widths.from_json(description.widths).kept.items():
        if Side.out in sides:
            for parameter in masked.get_submodule(module).parameters():
                parameter.data[~sides[Side.out]] = 0
    torch.testing.assert_close(models.probe(model, 16), models.probe(masked, 16), atol=1e-4, rtol=0)


def test_pruning_no_channel_changes_no_logit(make, store):
    changes = {"score__unit": "channel", "prune__ratio": 0, "method": SPLORA}
    made = artifacts(make(**PARTS, **changes), store)
    dense, checkpoint = (made[name].tensors("probe")["logits"] for name in ("train", "checkpoint"))
    torch.testing.assert_close(checkpoint, dense, atol=1e-6, rtol=0)


SPLOPA = {
    "_target_": "pear_cli.adapters.splopa.SPLoPA",
    "lr": 0.01,
    "prototypes": 4,
    "block": [4, 8],
    "rank": 1,
    "slots": ["attn.qkv", "mlp.fc1", "mlp.fc2"],
}


@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "fisher"])
def test_pruned_blocks_stay_zero_while_training_goes_on(make, store, criterion):
    changes = {"score__unit": "block", "score__criterion": criterion, "method": SPLOPA}
    made = artifacts(make(**PARTS, **changes), store)
    model, _ = load_model(made["adapt"])
    folded = merge(model)
    zeros = total = 0
    for block in folded.blocks:
        for layer in (block.attn.qkv, block.mlp.fc1, block.mlp.fc2):
            sums = layer.weight.abs().unflatten(0, (-1, 4)).unflatten(2, (-1, 8)).sum((1, 3))
            zeros, total = zeros + int((sums == 0).sum()), total + sums.numel()
    assert zeros == total / 2
    dense, adapted = (made[name].manifest["accounting"]["stored_params"] for name in ("train", "adapt"))
    assert adapted == dense - 4 * zeros


SPPARA = {
    "_target_": "pear_cli.adapters.sppara.SPPaRA",
    "lr": 0.001,
    "slots": ["conv1", "conv2", "downsample"],
}
RESNET = {"name": "resnet18", "args": {"channels": [8, 12, 16, 20], "img_size": 64}}


def test_the_channels_of_a_residual_network_are_pruned_and_it_trains_on(make, store):
    changes = {"score__unit": "channel", "prune__scope": "slot", "optim__epochs": 1, "optim__adapt_epochs": 1}
    backbone = {f"backbone__{name}": value for name, value in RESNET.items()}
    experiment = make(**PARTS, **changes, **backbone, score__batches=1, method=SPPARA)
    made = artifacts(experiment, store)
    sizes = [made[name].manifest["accounting"]["stored_params"] for name in ("train", "adapt")]
    assert sizes[1] < 0.5 * sizes[0]
    costs = made["eval"].manifest["accounting"]
    assert costs["speedup_theoretical"] > 1.1
    model, _ = load_model(made["adapt"])
    assert costs["network_params"] == sum(p.numel() for p in model.parameters())
    assert costs["network_params"] < 0.8 * costs["whole_network_params"]


@pytest.mark.parametrize(
    "changes",
    [
        {"score__unit": "head", "prune__effect": "attention"},
        {"score__unit": "rank"},
        {"score__unit": "channel", "prune__scope": "slot", "method": SPLORA},
        {"score__unit": "block", "method": SPLOPA},
    ],
    ids=["head", "rank", "channel", "block"],
)
def test_what_is_pruned_survives_export(make, store, tmp_path, changes):
    adapted = artifacts(make(**PARTS, **changes), store)["adapt"]
    out = export(adapted.path, tmp_path / "model.safetensors")
    torch.testing.assert_close(models.probe(api.load(out), 16), adapted.tensors("probe")["logits"])
    if "method" in changes and changes["method"] is SPLORA:
        with pytest.raises(ConfigError, match="export it without --merge"):
            merged.export(adapted.path, tmp_path / "merged.safetensors")


def test_what_the_reader_must_know_is_said_while_it_runs(make, store, capsys):
    slots = {"method__slots": ["attn.q"], "prune__ratio": 0.9, "backbone__args__depth": 1}
    perform_all(make(**slots, share__rule="ranked"), store)
    said = capsys.readouterr().err
    assert "has Kendall's τ" not in said  # of a single unit there is no ranking
    assert "every group keeps one" in said


def test_what_a_stage_does_before_its_first_image_is_said(make, store, monkeypatch):
    said = []
    monkeypatch.setattr(progress, "doing", lambda title, *_, **__: said.append(title) or nullcontext())
    perform("train", make(), store)
    assert said[-2:] == ["building vit_tiny_patch16_224", "reading train and validation of digits"]
