"""The presets of papers' settings: the published numbers, and that each goes through the whole pipeline."""

import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.lily import Lily
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.neat import NEAT
from pear_cli.adapters.splora import SPLoRA
from pear_cli.config.choices import Criterion, Effect, KnowledgeKind, Schedule, Scope, ShareRule, Unit
from pear_cli.config.presets import config_dir
from pear_cli.data.dataset import Normalization
from pear_cli.data.vtab import Vtab
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.read import read
from pear_cli.model import models
from pear_cli.stages.perform import perform_all
from pear_cli.store.store import Store
from pear_cli.training.engine import updates_per_epoch

CONF = config_dir()
VTAB = ("lora_vtab", "adaptformer_vtab", "lily_vtab", "heat_vtab", "pear_vtab")
SPA = ("spa_resnet50", "spa_vit")
ORIGINAL = (*VTAB, "neat_vit")  # the original weights of ImageNet-21k, and adapters in a transformer
PAPERS = (*ORIGINAL, *SPA)
PRUNED = ("heat_vtab", "pear_vtab")

SMALL = [
    "+backbone.args={img_size: 32, depth: 2, embed_dim: 48, num_heads: 3}",
    "backbone.pretrained=false",
]
THIN = [
    "backbone.name=resnet26",
    "+backbone.args={channels: [4, 6, 8, 10], img_size: 32}",
    "backbone.pretrained=false",
]


def built(*overrides: str) -> Experiment:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return read(compose("config", list(overrides)))


def small(name: str, *overrides: str) -> Experiment:
    """A preset on a two-block ViT, or a thin ResNet, with random weights, where some widths have no room."""
    narrow = ["method.rank=4"] if name in ("lily_vtab", "spa_resnet50") else []
    narrow += ["prune.steps=2"] if name in SPA else []
    return built(f"experiment={name}", *(THIN if name == "spa_resnet50" else SMALL), *narrow, *overrides)


@pytest.mark.parametrize("name", VTAB)
def test_a_vtab_preset_has_the_published_protocol(name):
    found = built(f"experiment={name}", "dataset.task=caltech101")
    optim = found.optim
    assert isinstance(found.dataset, Vtab)
    assert (found.dataset.task, found.dataset.train_split) == ("caltech101", "train800val200")
    assert (optim.lr, optim.weight_decay, optim.batch_size, optim.accumulate) == (1e-3, 1e-4, 64, 1)
    assert (optim.epochs, optim.warmup, optim.start_lr, optim.final_lr) == (100, 0.1, 1e-6, 1e-5)
    assert (optim.clip, optim.label_smoothing, found.backbone.drop_path) == (None, 0.0, 0.1)


@pytest.mark.parametrize("name", VTAB)
def test_a_vtab_preset_does_not_normalise_as_the_authors_scripts_do_not(name):
    assert built(f"experiment={name}").dataset.normalization is Normalization.none


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_preset_takes_the_original_weights_of_imagenet_21k(name):
    backbone = built(f"experiment={name}").backbone
    assert (backbone.name, backbone.pretrained) == ("vit_base_patch16_224.orig_in21k", True)


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_preset_trains_the_published_number_of_epochs_in_all(name):
    optim = built(f"experiment={name}").optim
    assert optim.dense_epochs + optim.shared_epochs == (10 if name == "neat_vit" else 100)
    assert (optim.schedule is Schedule.continued) == (name in PRUNED)


@pytest.mark.parametrize("name", [name for name in ORIGINAL if name not in PRUNED])
def test_a_preset_of_a_method_alone_prunes_nothing(name):
    found = built(f"experiment={name}")
    assert found.prune.ratio == 0
    assert (found.share.rule, found.knowledge.kind) == (ShareRule.none, KnowledgeKind.none)


@pytest.mark.parametrize("name", ["lora_vtab", "heat_vtab", "pear_vtab"])
def test_lora_has_rank_8_on_queries_and_values(name):
    method = built(f"experiment={name}").method
    assert isinstance(method, LoRA)
    assert (method.rank, method.scale, method.dropout, method.slots) == (8, 1.0, 0.1, ("attn.q", "attn.v"))


def test_adaptformer_has_rank_8_and_no_biases():
    method = built("experiment=adaptformer_vtab").method
    assert isinstance(method, AdaptFormer)
    assert (method.rank, method.scale, method.dropout, method.bias) == (8, 1.0, 0.1, False)


def test_lily_has_the_defaults_of_the_authors_script():
    method = built("experiment=lily_vtab").method
    assert isinstance(method, Lily)
    assert (method.rank, method.experts, method.blocks_a_group, method.scale) == (32, 4, 3, 1.0)
    assert (method.slots, method.monoscale) == (("attn.k", "attn.v", "mlp"), False)
    assert method.router_stats.value == "batch"


def test_heat_switches_off_the_updates_of_heads_in_every_block():
    found = built("experiment=heat_vtab")
    assert (found.score.unit, found.prune.scope, found.prune.effect) == (
        Unit.head,
        Scope.block,
        Effect.adapter,
    )
    assert (found.share.rule, found.knowledge.kind) == (ShareRule.none, KnowledgeKind.none)


def test_pear_prunes_and_shares_adapters_and_keeps_what_they_knew():
    found = built("experiment=pear_vtab")
    assert (found.score.unit, found.prune.ratio) == (Unit.adapter, 0.5)
    assert (found.share.rule, found.knowledge.kind) == (ShareRule.ranked, KnowledgeKind.frozen)


def test_neat_has_the_numbers_of_the_authors_script_for_cifar_100():
    found = built("experiment=neat_vit")
    method, optim = found.method, found.optim
    assert isinstance(method, NEAT)
    assert (method.rank, method.depth, method.scale, method.dropout) == (7, 2, 1.0, 0.0)
    assert method.slots == ("attn.q", "attn.v")
    assert (optim.epochs, optim.lr, optim.weight_decay, optim.warmup) == (10, 5e-3, 1e-4, 0.0)
    assert (optim.batch_size * optim.accumulate, optim.clip) == (256, 1.0)
    assert updates_per_epoch(50_000, optim) == math.ceil(50_000 / 256)
    assert (found.dataset.name, found.dataset.normalization) == ("cifar100", Normalization.half)
    assert built("experiment=neat_vit", "dataset=cifar10").dataset.normalization is Normalization.half


@pytest.mark.parametrize(
    ("name", "rank", "epochs", "batch", "ratio", "criterion", "scope"),
    [
        ("spa_resnet50", 32, (30, 18 * 20), 64, 0.9, Criterion.group_taylor, Scope["global"]),
        ("spa_vit", 8, (20, 15 * 10), 16, 0.75, Criterion.group_magnitude, Scope.slot),
    ],
)
def test_spa_has_the_numbers_of_the_authors_scripts(name, rank, epochs, batch, ratio, criterion, scope):
    found = built(f"experiment={name}")
    assert isinstance(found.method, SPLoRA)
    assert found.method.rank == rank
    assert (found.optim.epochs, found.optim.adapt_epochs) == epochs
    assert (found.optim.batch_size, found.optim.weight_decay) == (batch, 5e-4)
    assert (found.score.unit, found.score.criterion) == (Unit.channel, criterion)
    assert (found.prune.ratio, found.prune.scope) == (ratio, scope)
    assert found.prune.ratio / found.prune.steps == pytest.approx(0.05)
    assert (found.share.rule, found.knowledge.kind) == (ShareRule.none, KnowledgeKind.none)


def test_the_command_line_overrides_what_a_preset_sets():
    found = built("experiment=pear_vtab", "method=adaptformer", "prune.ratio=0", "seed=3")
    assert isinstance(found.method, AdaptFormer)
    assert (found.prune.ratio, found.seed, found.share.rule) == (0, 3, ShareRule.none)


@pytest.mark.parametrize("name", PAPERS)
def test_the_commands_of_a_header_compose(name):
    commands = [
        line.split()[1:]
        for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
        if line.startswith("#   pear ")
    ]
    assert commands
    for words in commands:
        settings = [word for word in words if "=" in word or word.startswith("~")]
        assert f"experiment={name}" in settings
        for which in (0, -1):
            built(*(one_of(word, which) for word in settings))


def one_of(word: str, which: int) -> str:
    """One of the overrides that a word of a sweep stands for."""
    key, _, values = word.partition("=")
    sweep = values.split(",") if "[" not in values else [values]
    return f"{key}={sweep[which]}" if values else word


@pytest.mark.parametrize(
    ("overrides", "parameters"),
    [
        (("experiment=lora_vtab",), 294_912),  # published: 0.29 M
        (("experiment=adaptformer_vtab", "method.bias=true"), 156_768),  # 0.16 M
        (("experiment=adaptformer_vtab",), 147_456),
        (("experiment=lily_vtab",), 792_576),
        (("experiment=neat_vit",), 258_048),
        (("experiment=spa_resnet50",), 1_595_264),
        (("experiment=spa_vit",), 1_262_592),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_at_full_size_a_preset_trains_the_number_of_parameters_that_its_header_says(overrides, parameters):
    found = built(*overrides, "backbone.pretrained=false")
    with torch.device("meta"):
        model = models.create(found.backbone, found.method, 10, seed=0)
    trained = {name: p for name, p in models.trained(model).items() if not name.startswith("head.")}
    assert sum(p.numel() for p in trained.values()) == parameters


@pytest.mark.parametrize("name", PAPERS)
def test_a_preset_is_built_and_runs_forward(name):
    found = small(name)
    model = models.create(found.backbone, found.method, 5, seed=0)
    assert models.trained(model)
    logits = model(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", PAPERS)
def test_a_preset_goes_through_every_stage(name, tmp_path: Path):
    epochs = 2 if name in PRUNED else 1  # one before pruning and one after it
    digits = ["dataset=digits", f"optim.epochs={epochs}", "score.batches=2"]
    digits += ["optim.adapt_epochs=2"] if name in SPA else []
    runtime = ["runtime.device=cpu", "runtime.threads=1"]
    outcomes = perform_all(small(name, *digits, *runtime), Store(tmp_path / "store"))
    manifest = outcomes[-1].artifact.manifest
    assert manifest["stage"] == "eval"
    assert 0 <= manifest["metrics"]["accuracy"] <= 1
