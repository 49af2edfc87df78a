"""Lily, and what it alone uses of the contract: banks, and statistics that adapters gather."""

import copy
import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors import safe_open

from pear_cli.adapters.lily import DECAY, Lily, RouterStats
from pear_cli.adapters.linear import LinearProbe
from pear_cli.config.presets import config_dir
from pear_cli.config.settings import Backbone
from pear_cli.errors import ConfigError
from pear_cli.experiment.read import read
from pear_cli.model import models
from pear_cli.model.load import load_model
from pear_cli.stages.perform import perform
from pear_cli.store.store import Store
from pear_cli.training.engine import Trainer

WIDTH, DEPTH = 24, 5
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
TESTS = Path(__file__).parent.parent


def lily(**changes):
    given = {"lr": 1, "rank": 3, "scale": 0.5, "experts": 2, "stride": 2, "monoscale": False}
    given |= {"router_stats": RouterStats.batch, "slots": ("attn.k", "attn.v", "mlp")}
    return Lily(**given | changes)


MONO = lily(monoscale=True)
RUNNING = lily(router_stats=RouterStats.running)
METHODS = {"router": lily(), "monoscale": MONO, "running": RUNNING}


def adapted(method, depth=DEPTH, random=True):
    args = {"img_size": 16, "patch_size": 8, "embed_dim": WIDTH, "depth": depth, "num_heads": 3}
    given = {"name": "vit_tiny_patch16_224", "pretrained": False, "weights": None, "seed": 0, "args": args}
    model = models.create(Backbone(**given, drop_path=0.0, mean=None, std=None), method, 4, seed=0)
    if random:
        generator = torch.Generator().manual_seed(2)
        for parameter in models.trained(model).values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def adapters(model):
    return models.adaptation(model).adapters()


def bank_names(model):
    return sorted(
        n.removeprefix("bank.") for n in models.adaptation(model).tensors() if n.startswith("bank.")
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_new_adaptation_changes_nothing(name):
    bare = adapted(LinearProbe(lr=1, slots=()), random=False)
    model = adapted(METHODS[name], random=False)
    assert torch.equal(model.forward_features(IMAGES), bare.forward_features(IMAGES))


@pytest.mark.parametrize(
    ("depth", "experts", "stride", "groups", "rank", "monoscale"),
    [
        (4, 4, 1, 4, 3, False),
        (5, 2, 2, 3, 3, False),
        (6, 3, None, 2, 12, False),
        (7, 4, None, 3, 2, False),
        (2, 13, None, 2, 1, False),
        (5, 2, 9, 1, 3, False),
        (5, 1, 3, 2, 4, True),
    ],
    ids=["a group a block", "uneven", "12 // 3", "12 // 4", "at least 1", "one group", "monoscale"],
)
def test_parameter_counts_equal_the_closed_form(depth, experts, stride, groups, rank, monoscale):
    model = adapted(lily(experts=experts, stride=stride, rank=rank, monoscale=monoscale), depth)
    routers = 0 if monoscale else depth * experts * 4 * rank  # of D, D and 2D
    trained = models.adaptation(model).trained()
    assert sum(p.numel() for p in trained.values()) == 4 * rank * WIDTH * (groups + experts) + routers


def test_lp_is_one_object_for_consecutive_blocks_and_hp_for_the_model():
    homes = adapters(adapted(lily(stride=2)))
    for slot in ("attn.k", "attn.v", "mlp"):
        lps = [homes[f"blocks.{block}.{slot}"].banks["lp"] for block in range(DEPTH)]
        assert [len({id(lp) for lp in lps[:end]}) for end in range(1, DEPTH + 1)] == [1, 1, 2, 2, 3]
        assert len({id(homes[f"blocks.{block}.{slot}"].banks["hp"]) for block in range(DEPTH)}) == 1
    first = [homes[f"blocks.0.{slot}"].banks for slot in ("attn.k", "attn.v", "mlp")]
    assert len({id(bank) for banks in first for bank in banks.values()}) == 6


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_parameter_gets_a_gradient_and_the_backbone_none(name):
    model = adapted(METHODS[name]).train()
    model(IMAGES).square().sum().backward()
    touched = {id(p) for p in model.parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == {id(p) for p in models.trained(model).values()}


@pytest.mark.parametrize(("name", "alike"), [("router", False), ("monoscale", True)])
def test_the_router_alone_tells_experts_apart_that_start_alike(name, alike):
    model = adapted(METHODS[name], random=False)
    model.head.weight.data.normal_(generator=torch.Generator().manual_seed(3))
    model(IMAGES).square().sum().backward()
    hps = [bank.grad for bank_name, bank in models.adaptation(model).banks.items() if "hp" in bank_name]
    assert [torch.allclose(*grad, rtol=1e-5) for grad in hps] == [alike] * 3


def test_a_bank_gets_the_sum_of_the_gradients_of_its_sites():
    model = adapted(lily(stride=2))
    apart = adapted(lily(stride=1))
    for name, home in adapters(apart).items():
        home.load_state_dict(adapters(model)[name].state_dict())
        for bank, own in home.banks.items():
            own.data.copy_(adapters(model)[name].banks[bank])
    apart.head.load_state_dict(model.head.state_dict())
    for each in (model, apart):
        each(IMAGES).square().sum().backward()
    parts = [adapters(apart)[f"blocks.{block}.mlp"].banks["lp"].grad for block in (2, 3)]
    torch.testing.assert_close(adapters(model)["blocks.2.mlp"].banks["lp"].grad, parts[0] + parts[1])


def test_with_batch_statistics_an_image_depends_on_those_beside_it():
    model = adapted(lily()).eval()
    assert (model(IMAGES)[:1] - model(IMAGES[:1])).abs().max() > 1e-4


@pytest.mark.parametrize("method", [RUNNING, MONO], ids=["running", "monoscale"])
def test_with_running_statistics_or_without_routers_it_does_not(method):
    model = adapted(method).train()
    for batch in IMAGES.split(2):
        model(batch)
    model.eval()
    torch.testing.assert_close(model(IMAGES)[:1], model(IMAGES[:1]))


def test_running_statistics_are_the_weighted_mean_of_p_in_training_and_uniform_before():
    home = adapters(adapted(RUNNING))["blocks.1.attn.k"]
    xs = torch.randn(3, 2, 7, WIDTH, generator=torch.Generator().manual_seed(3))
    lp, hp, router = home.banks["lp"], home.banks["hp"], home.router

    def expected(p, x):
        return 0.5 * x @ lp.T @ sum(share * expert for share, expert in zip(p, hp, strict=True))

    torch.testing.assert_close(home.eval()(xs[0], xs[0], None), expected([0.5, 0.5], xs[0]))
    assert not home.routed.any()
    ps = [(x @ lp.T @ router.T).softmax(-1).mean((0, 1)) for x in xs]
    for x, p in zip(xs, ps, strict=True):
        torch.testing.assert_close(home.train()(x, x, None), expected(p, x))
    weights = [DECAY**2, DECAY, 1]
    mean = sum(w * p for w, p in zip(weights, ps, strict=True)) / sum(weights)
    torch.testing.assert_close(home.eval()(xs[0], xs[0], None), expected(mean, xs[0]))


def test_windows_of_tokens_and_maps_of_channels_last_are_read_alike():
    home = adapters(adapted(lily()))["blocks.1.mlp"]
    x = torch.randn(2, 4, 5, WIDTH)  # B, H, W, C, as Swin has it
    flat = x.flatten(1, 2)
    torch.testing.assert_close(home(x, x, None).flatten(1, 2), home(flat, flat, None))


@pytest.mark.parametrize("slot", ["attn.k", "attn.v"])
def test_the_factors_of_monoscale_are_its_update(slot):
    home = adapters(adapted(MONO))[f"blocks.3.{slot}"]
    x = torch.randn(2, 7, WIDTH)
    up, down, scale = MONO.factors(home, None)
    assert (up.shape, down.shape, scale) == ((WIDTH, 3), (3, WIDTH), 0.5)
    torch.testing.assert_close(home(x, x, None), 0.5 * x @ (up @ down).T)


def test_what_has_a_router_or_a_relu_has_no_factors():
    assert MONO.factors(adapters(adapted(MONO))["blocks.0.mlp"], None) is None
    assert all(lily().factors(home, None) is None for home in adapters(adapted(lily())).values())


def test_monoscale_at_linear_slots_equals_a_changed_weight():
    method = lily(monoscale=True, slots=("attn.k", "attn.v"))
    model = adapted(method).eval()
    bare = adapted(LinearProbe(lr=1, slots=()), random=False)
    bare.head.load_state_dict(model.head.state_dict())
    for position in models.adaptation(model).each():
        up, down, scale = method.factors(position.owner, position.weight)
        host = bare.get_submodule(position.site.module)
        host.weight.data[slice(*position.site.rows)] += scale * up @ down
    torch.testing.assert_close(bare(IMAGES), model(IMAGES), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_tensors_of_a_model_make_another_equal(name):
    model = adapted(METHODS[name]).train()
    model(IMAGES)
    stored = models.tensors(model)
    twin = adapted(METHODS[name], random=False)
    models.load_tensors(twin, stored)
    assert torch.equal(twin.eval()(IMAGES), model.eval()(IMAGES))
    assert ("adapter.blocks.0.mlp.routed" in stored) == (name == "running")
    assert [n for n in models.trained(model) if n.endswith("routed")] == []
    assert len({tensor.data_ptr() for tensor in stored.values()}) == len(stored)


def test_a_copy_of_a_model_has_banks_of_its_own_and_shares_them():
    model = adapted(lily()).eval()
    before, twin = model(IMAGES), copy.deepcopy(model)
    for parameter in models.adaptation(twin).trained().values():
        parameter.data.mul_(2)
    homes = adapters(twin)
    assert homes["blocks.0.mlp"].banks["lp"] is homes["blocks.1.mlp"].banks["lp"]
    assert homes["blocks.0.mlp"].banks["lp"] is models.adaptation(twin).banks["lp/mlp/24/0"]
    assert torch.equal(model(IMAGES), before)
    assert not torch.equal(twin(IMAGES), before)


def test_banks_that_no_kept_adapter_uses_are_gone_from_the_tensors():
    model = adapted(lily(stride=2))
    owners = dict(models.adaptation(model).owners())
    for block in (2, 3):
        owners[f"blocks.{block}.attn.k"] = None
        owners[f"blocks.{block}.mlp"] = "blocks.0.mlp"
    owners["blocks.4.attn.v"] = None
    models.adaptation(model).share(owners)
    lps = [f"lp.{slot}.24.{group}" for slot in ("attn.k", "attn.v", "mlp") for group in range(3)]
    gone = {"lp.attn.k.24.1", "lp.attn.v.24.2", "lp.mlp.24.1"}
    hps = {f"hp.{slot}.24" for slot in ("attn.k", "attn.v", "mlp")}
    assert set(bank_names(model)) == {*lps, *hps} - gone
    model(IMAGES).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in models.trained(model).values())
    unused = {id(p) for p in models.adaptation(model).banks.values()} - {
        id(p) for p in models.trained(model).values()
    }
    assert not unused
    assert all(p.grad is None for p in model.parameters() if id(p) in unused)


def test_a_bank_stays_as_long_as_one_adapter_uses_it():
    model = adapted(lily(stride=2))
    owners = dict.fromkeys(models.adaptation(model).owners())
    models.adaptation(model).share(owners | {"blocks.3.attn.k": "blocks.3.attn.k"})
    assert bank_names(model) == ["hp.attn.k.24", "lp.attn.k.24.1"]


def test_an_owner_serves_with_its_own_lp_router_and_hp():
    model = adapted(lily(stride=2)).eval()
    adaptation = models.adaptation(model)
    here, home = adaptation.at("blocks.4.mlp", "blocks.0.mlp")
    x = torch.randn(2, 7, WIDTH)
    expected = home(x, x)
    adaptation.share(adaptation.owners() | {"blocks.4.mlp": "blocks.0.mlp"})
    assert torch.equal(here(x, x), expected)


def test_running_statistics_of_an_owner_are_over_all_its_sites():
    model = adapted(lily(router_stats=RouterStats.running, slots=("mlp",))).train()
    adaptation = models.adaptation(model)
    adaptation.share(dict.fromkeys(adaptation.owners(), "blocks.2.mlp"))
    model(IMAGES)
    (owner,) = adaptation.adapters().values()
    torch.testing.assert_close(owner.routed.sum().item(), sum(DECAY**i for i in range(DEPTH)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"method\.rank = 0 is out of range: 1 to 65536"),
        ({"scale": 0.0}, r"method\.scale = 0\.0 is out of range: 0 < scale <= 10000"),
        ({"experts": 0}, r"method\.experts = 0 is out of range: 1 to 1024"),
        ({"experts": 1}, r"method\.experts = 1 .* at least 2.* needs method\.monoscale=true"),
        ({"stride": 0}, r"method\.stride = 0 is out of range: 1 to 65536, or null"),
        ({"slots": ()}, r"method\.slots is empty"),
        (
            {"monoscale": True, "router_stats": RouterStats.running},
            r"method\.router_stats = running: .* there is no router; use batch",
        ),
        (
            {"rank": 13},
            r"method\.rank = 13 is out of range: at most 12: a bottleneck of 2D .* blocks\.0\.mlp",
        ),
        ({"rank": 25, "slots": ("attn.v",)}, r"method\.rank = 25 is out of range: at most 24"),
    ],
)
def test_a_value_out_of_its_range_is_an_error_that_says_so(changes, message):
    with pytest.raises(ConfigError, match=message):
        adapted(lily(**changes))


TINY = ("backbone=tiny", "dataset=digits", "optim.batch_size=200", "runtime.threads=1", "method=lily")
TINY += ("method.rank=2", "method.stride=3", "score.batches=2", "score.criterion=taylor")


def experiment(*overrides):
    search = f"hydra.searchpath=[file://{TESTS / 'configs'}]"
    with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        return read(compose("config", [search, *TINY, "optim.epochs=2", *overrides]))


def test_router_stats_that_are_unknown_are_an_error():
    with pytest.raises(ConfigError, match=r'method\.router_stats = "mean" is unknown; use batch, running'):
        experiment("method.router_stats=mean")


def test_nothing_is_kept_of_a_pruned_adapter():
    with pytest.raises(ConfigError, match=r"knowledge\.kind = frozen: an adapter of Lily .* knowledge=none"):
        experiment("knowledge=frozen")


def test_training_that_was_cut_off_goes_on_as_if_it_never_had(tmp_path, monkeypatch):
    running = experiment("method.router_stats=running")
    whole = perform("train", running, Store(tmp_path / "whole")).artifact
    assert any(name.endswith(".routed") for name in whole.tensors("adapters"))
    epoch, broken = Trainer.epoch, Store(tmp_path / "broken")

    def stop_at_the_second(self, index, *watch):
        if index == 1:
            raise KeyboardInterrupt
        return epoch(self, index, *watch)

    monkeypatch.setattr(Trainer, "epoch", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        perform("train", running, broken)
    monkeypatch.setattr(Trainer, "epoch", epoch)
    assert perform("train", running, broken).artifact.manifest["files"] == whole.manifest["files"]


@pytest.mark.parametrize("stats", ["batch", "running"])
def test_a_whole_run_from_the_command_line_stores_every_tensor_once(pear, tmp_path, quiet, stats):
    words = (*TINY, f"method.router_stats={stats}", "optim.epochs=1", "prune.ratio=0.75")
    said = pear("run", *quiet, "--config-dir", str(TESTS / "configs"), *words)
    assert said.code == 0, said.err
    store = Store(tmp_path / "outputs" / "store")
    (key,) = set(store.resolve(Path(said.out.strip()).name).inputs.values())
    adapt = store.get("train", key)
    model, description = load_model(adapt)
    assert description.knowledge is None

    homes = [(site.split(".", 2)[2], int(site.split(".")[1])) for site in models.adaptation(model).adapters()]
    assert len(homes) == 3  # of 12: one a group
    width = {"attn.k": 2, "attn.v": 2, "mlp": 4}  # D, D and 2D, of C = 16; E = 4
    expected = {
        "routers": sum(4 * width[slot] for slot, _ in homes),
        "lp": sum(width[slot] * 16 for slot, _ in {(slot, block // 3) for slot, block in homes}),
        "hp": sum(4 * width[slot] * 16 for slot in {slot for slot, _ in homes}),
        "head": 16 * 10 + 10,
    }
    statistics = 4 * len(homes) if stats == "running" else 0
    with safe_open(adapt.path / "adapters.safetensors", "pt") as file:
        stored = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    assert sum(stored) == sum(expected.values()) + statistics
    assert adapt.manifest["accounting"]["trainable_params"] == sum(expected.values())


@pytest.fixture(scope="module")
def monoscale(tmp_path_factory):
    """A store with a trained monoscale model, whose units have no parameters of their own."""
    store = Store(tmp_path_factory.mktemp("monoscale") / "store")
    perform("train", experiment("method=lily_mono"), store)
    return store


@pytest.mark.parametrize("criterion", ["taylor", "activation", "ablation", "random"])
def test_units_without_parameters_are_scored_by_what_needs_none(monoscale, criterion):
    scored = perform("score", experiment("method=lily_mono", f"score.criterion={criterion}"), monoscale)
    units = scored.artifact.json("importance")["units"]
    assert [unit["parameters"] for unit in units] == [0] * 12
    assert len({unit["score"] for unit in units}) == 12


@pytest.mark.parametrize("criterion", ["gradient", "magnitude", "fisher"])
def test_units_without_parameters_are_not_scored_by_parameters(monoscale, criterion):
    with pytest.raises(ConfigError, match=rf"score\.criterion = {criterion}: .* no parameters of its own"):
        perform("score", experiment("method=lily_mono", f"score.criterion={criterion}"), monoscale)
