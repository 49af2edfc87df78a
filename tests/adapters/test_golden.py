"""Every method against its golden vectors: other shapes of the same formulas, computed independently."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Adapter
from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.cut import Cut
from pear_cli.adapters.lily import Lily, RouterStats
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.neat import NEAT
from pear_cli.adapters.splopa import SPLoPA
from pear_cli.adapters.splora import SPLoRA
from pear_cli.adapters.sppara import SPPaRA
from pear_cli.backbone.site import Site
from pear_cli.pruning.mask import clear

GOLDEN = Path(__file__).parent.parent / "golden"


class OneBlock(nn.Module):
    """The least model that has the sites of a timm ViT."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.block = Block(width, num_heads, mlp_ratio, qkv_bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["config"])


def fill(adaptation: Adaptation, **tensors: Tensor) -> None:
    """Set adapter parameters given as `<slot with _>__<parameter>`."""
    for position in adaptation.each():
        for name, parameter in position.owner.named_parameters():
            parameter.data.copy_(tensors[f"{position.site.slot.replace('.', '_')}__{name}"])


@pytest.mark.parametrize("case", ["lora_qv_a", "lora_qv_b"])
def test_lora_on_q_and_v_of_a_fused_qkv_matches_the_golden_vectors(case):
    t, config = golden(case)
    model = OneBlock(t["x"].shape[-1], int(config["num_heads"]), 1).eval()
    model.block.attn.load_state_dict(
        {k.replace("_", ".", 1): t[k] for k in ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")}
    )
    method = LoRA(
        lr=1, rank=int(config["rank"]), scale=config["scale"], dropout=0.1, slots=("attn.q", "attn.v")
    )
    adaptation = Adaptation(model, method).attach(model).eval()
    fill(
        adaptation,
        attn_q__down=t["down_q"],
        attn_q__up=t["up_q"],
        attn_v__down=t["down_v"],
        attn_v__up=t["up_v"],
    )
    torch.testing.assert_close(model.block.attn(t["x"]), t["y"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["adaptformer_a", "adaptformer_b"])
def test_adaptformer_matches_the_golden_vectors(case):
    t, config = golden(case)
    model = OneBlock(t["x"].shape[-1], int(config["num_heads"]), config["mlp_ratio"]).eval()
    model.block.load_state_dict({k.removeprefix("block."): v for k, v in t.items() if k.startswith("block.")})
    method = AdaptFormer(
        lr=1, rank=int(config["dim"]), scale=config["scale"], dropout=0.1, bias=False, slots=("mlp",)
    )
    adaptation = Adaptation(model, method).attach(model).eval()
    fill(adaptation, mlp__down=t["down"], mlp__up=t["up"])
    torch.testing.assert_close(model(t["x"]), t["y"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("case", "slot"), [("lily_router_a", "attn.k"), ("lily_mono_a", "attn.v"), ("lily_router_relu_a", "mlp")]
)
def test_lily_matches_the_golden_vectors(case, slot):
    t, config = golden(case)
    model = OneBlock(t["x"].shape[-1], num_heads=3, mlp_ratio=2).eval()
    host = model.block.mlp if slot == "mlp" else model.block.attn.qkv
    base = host(t["x"])
    method = Lily(
        lr=1,
        rank=int(config["rank"]) // (2 if slot == "mlp" else 1),
        scale=0.5,
        experts=int(config["experts"]),
        stride=1,
        monoscale=bool(config["monoscale"]),
        router_stats=RouterStats.batch,
        slots=(slot,),
    )
    adaptation = Adaptation(model, method).attach(model).eval()
    (position,) = adaptation.each()
    fill(adaptation, **{f"{slot.replace('.', '_')}__router": t["router"]} if "router" in t else {})
    position.owner.banks["lp"].data.copy_(t["lp"])
    position.owner.banks["hp"].data.copy_(t["hps"])
    update = host(t["x"]) - base
    rows = slice(*position.site.rows) if position.site.rows else slice(None)
    torch.testing.assert_close(update[..., rows], 0.5 * t["delta"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("slot", ["attn.q", "attn.v", "mlp.fc1"])
@pytest.mark.parametrize("case", ["neat_depth2_a", "neat_depth4_a"])
def test_neat_matches_the_golden_vectors(case, slot):
    t, config = golden(case)
    model = OneBlock(t["x"].shape[-1], num_heads=3, mlp_ratio=1).eval()
    host = model.block.mlp.fc1 if slot == "mlp.fc1" else model.block.attn.qkv
    method = NEAT(
        lr=1, rank=int(config["dim"]), depth=int(config["depth"]), scale=0.5, dropout=0.1, slots=(slot,)
    )
    adaptation = Adaptation(model, method).attach(model)
    (position,) = adaptation.eval().each()
    rows = slice(*position.site.rows) if position.site.rows else slice(None)
    host.weight.data[rows] = t["weight"]
    base = host(t["x"])
    names = {"down": "A", "up": "B", "encoder0": "enc0", "decoder0": "dec0"}
    for name, parameter in position.owner.named_parameters():
        parameter.data.copy_(t[names[name]])
    expected = torch.zeros_like(base)
    expected[..., rows] = 0.5 * t["delta"]
    torch.testing.assert_close(host(t["x"]) - base, expected, atol=1e-5, rtol=0)


class OneLayer(nn.Module):
    """A residual block of one layer, as timm names it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv1, self.downsample = layer, None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x)


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("splora_conv_a", {"cols": "cols", "rows": "rows"}),
        ("sppara_conv_a", {"pointwise": "adapter"}),
    ],
)
def test_spa_at_a_convolution_matches_the_golden_vectors(case, names):
    t, config = golden(case)
    c_out, c_in, kernel, _ = t["weight"].shape
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
    layer.load_state_dict({"weight": t["weight"], "bias": t["bias"]})
    rank = {"rank": config["rank"]} if "rank" in config else {}
    method = (SPLoRA if rank else SPPaRA)(lr=1, slots=("conv1",), **rank)
    model = OneBlock(8, 2, 1)
    model.block = OneLayer(layer)
    fill(
        Adaptation(model, method).attach(model),
        **{f"conv1__{ours}": t[theirs] for ours, theirs in names.items()},
        conv1__bias=torch.zeros(c_out),
    )
    torch.testing.assert_close(model(t["x"]), t["y"], atol=1e-5, rtol=0)


def test_splora_at_a_linear_layer_matches_the_golden_vectors_pruned_and_whole():
    t, config = golden("splora_linear_a")
    c_out, c_in = t["weight"].shape
    method = SPLoRA(lr=1, slots=("mlp.fc1",), rank=config["rank"])
    adapter = Adapter(method, Site("mlp.fc1", 0, "mlp.fc1", c_in, c_out, "mlp.fc1"), {})
    adapter.rows.data, adapter.cols.data = t["rows"], t["cols"]
    out = functional.linear(t["x"], t["weight"], t["bias"])
    torch.testing.assert_close(out + adapter(t["x"], out, t["weight"]), t["y"], atol=1e-5, rtol=0)

    rows, columns = (t[name].nonzero()[:, 0] for name in ("out_mask", "in_mask"))
    adapter.narrow({"cols": {0: rows}, "rows": {1: columns}, "bias": {0: rows}})
    x, weight = t["x"][:, columns], t["weight"][rows][:, columns]
    out = functional.linear(x, weight, t["bias"][rows])
    torch.testing.assert_close(out + adapter(x, out, weight), t["y_pruned"], atol=1e-5, rtol=0)


def test_splopa_matches_the_golden_vectors_pruned_and_whole():
    t, config = golden("splopa_linear_a")
    c_out, c_in = t["weight"].shape
    method = SPLoPA(
        lr=1,
        slots=("mlp.fc1",),
        prototypes=config["prototypes"],
        block=tuple(config["block"]),
        rank=config["prototype_rank"],
    )
    site = Site("mlp.fc1", 0, "mlp.fc1", c_in, c_out, "mlp.fc1")
    banks = {name: nn.Parameter(t[name]) for name in ("cols", "rows")}
    adapter = Adapter(method, site, banks)
    adapter.pos.data = t["pos"]
    out = functional.linear(t["x"], t["weight"], t["bias"])
    torch.testing.assert_close(out + adapter(t["x"], out, t["weight"]), t["y"], atol=1e-5, rtol=0)

    kept = t["block_mask"].flatten().nonzero()[:, 0].tolist()
    adapter.cut(Cut(blocks=kept))
    clear(t["weight"], method.grid(site), kept)
    out = functional.linear(t["x"], t["weight"], t["bias"])
    torch.testing.assert_close(out + adapter(t["x"], out, t["weight"]), t["y_pruned"], atol=1e-5, rtol=0)
