"""Heads and rank-1 components: their importance against closed forms, and what a mask leaves of a model."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.cut import head_rows
from pear_cli.adapters.lora import LoRA
from pear_cli.config.choices import Criterion, Effect, Reduction, ScoreOf, Unit, View
from pear_cli.config.settings import Score
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.pruning.mask import Mask, left_of
from pear_cli.scoring.criteria import CRITERIA
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.measure import measure
from pear_cli.training.devices import Device

CPU = Device(torch.device("cpu"), torch.float32)
MODELS = {
    "vit_tiny_patch16_224": {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 3},
    "eva02_tiny_patch14_224": {
        "img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2, "qkv_fused": False
    },
    "swin_tiny_patch4_window7_224": {
        "img_size": 32, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 3), "window_size": 4
    },
}  # fmt: skip


def adapted(
    name: str = "vit_tiny_patch16_224", slots: tuple[str, ...] = ("attn.q", "attn.v"), seed: int = 0
) -> tuple[nn.Module, Adaptation]:
    """A small model in float64 whose adapters are no longer zero."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=4, **MODELS[name])
    model.requires_grad_(False)
    adaptation = Adaptation(model, LoRA(lr=1, rank=3, scale=0.5, dropout=0.1, slots=slots)).attach(model)
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval(), adaptation


def batches(name: str = "vit_tiny_patch16_224") -> list[tuple[Tensor, Tensor]]:
    size = MODELS[name]["img_size"]
    torch.manual_seed(1)
    return [(torch.randn(4, 3, size, size).double(), torch.randint(4, (4,))) for _ in range(2)]


def score(
    model: nn.Module,
    unit: Unit,
    criterion: Criterion = Criterion.taylor,
    of: ScoreOf = ScoreOf.gate,
    view: View = View.adapter,
    name: str = "vit_tiny_patch16_224",
) -> Importance:
    config = Score(unit, criterion, Reduction.abs_of_sum, of, view, batches=None, batch_size=4)
    return measure(model, lambda: batches(name), config, CPU, 0)


def loss(model: nn.Module, name: str = "vit_tiny_patch16_224") -> Tensor:
    return torch.stack([nn.functional.cross_entropy(model(x), y) for x, y in batches(name)]).sum()


def test_there_is_a_unit_for_every_head_of_a_block_and_for_every_rank_of_a_site() -> None:
    model, _ = adapted()
    heads, ranks = score(model, Unit.head), score(model, Unit.rank)
    assert [u.name for u in heads.units][2:4] == ["blocks.0.attn.heads.2", "blocks.1.attn.heads.0"]
    assert [u.name for u in ranks.units][2:4] == ["blocks.0.attn.q.ranks.2", "blocks.0.attn.v.ranks.0"]
    assert {u.parameters for u in heads.units} == {2 * 8 * 3}  # two sites, Dh rows, rank 3
    assert {u.parameters for u in ranks.units} == {24 + 24}
    assert not heads.similarity


@pytest.mark.parametrize("unit", [Unit.head, Unit.rank])
@pytest.mark.parametrize("name", MODELS)
def test_taylor_is_the_derivative_of_scaling_the_units_part_of_up(unit: Unit, name: str) -> None:
    model, adaptation = adapted(name)
    found = score(model, unit, name=name).by_name()
    step = 1e-6
    for unit_name in list(found)[:: max(1, len(found) // 5)]:
        place, _, index = unit_name.rpartition(f".{unit.value}s.")
        sides = []
        for factor in (1 + step, 1 - step):
            with torch.no_grad():
                saved = copy.deepcopy(adaptation.state_dict())
                for position in adaptation.each():
                    site, up = position.site, position.owner.up  # type: ignore[union-attr]
                    if unit is Unit.rank and site.name == place:
                        up[:, int(index)] *= factor
                    if unit is Unit.head and site.name.startswith(f"{place}."):
                        up[head_rows(site, int(index))] *= factor
                sides.append(loss(model, name).item())
                adaptation.load_state_dict(saved)
        assert found[unit_name] == pytest.approx(abs(sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_the_ablation_of_a_head_is_what_a_mask_changes(name: str) -> None:
    model, _ = adapted(name)
    before = loss(model, name).item()
    found = score(model, Unit.head, Criterion.ablation, name=name).by_name()
    for unit in list(found)[::2]:
        masked, adaptation = adapted(name)
        Mask.of(Unit.head, Effect.adapter, (unit,)).apply(masked, adaptation)
        assert 2 * found[unit] == pytest.approx(loss(masked, name).item() - before, abs=1e-10)
    assert loss(model, name).item() == before  # nothing is left changed


def test_the_ablation_of_a_rank_is_what_a_mask_changes() -> None:
    model, _ = adapted()
    before = loss(model).item()
    found = score(model, Unit.rank, Criterion.ablation).by_name()
    for unit in list(found)[::4]:
        masked, adaptation = adapted()
        Mask.of(Unit.rank, Effect.adapter, (unit,)).apply(masked, adaptation)
        assert 2 * found[unit] == pytest.approx(loss(masked).item() - before, abs=1e-10)


@pytest.mark.parametrize("unit", [Unit.head, Unit.rank])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("of", list(ScoreOf))
def test_every_criterion_scores_every_unit(unit: Unit, criterion: Criterion, of: ScoreOf) -> None:
    model, _ = adapted()
    scores = score(model, unit, criterion, of).scores
    assert len(scores) == (9 if unit is Unit.head else 18)
    assert len(set(scores)) > 1


def test_taylor_over_all_of_a_rank_is_twice_that_of_its_gate() -> None:
    model, _ = adapted()
    gate, both = score(model, Unit.rank), score(model, Unit.rank, of=ScoreOf.all)
    assert both.scores == pytest.approx([2 * value for value in gate.scores])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_the_output_view_is_the_derivative_of_scaling_a_heads_attention_output(name: str) -> None:
    model, _ = adapted(name)
    found = score(model, Unit.head, view=View.output, name=name).by_name()
    step = 1e-6
    for unit in list(found)[::2]:
        attention, _, head = unit.rpartition(".heads.")
        proj, heads = model.get_submodule(f"{attention}.proj"), model.get_submodule(attention).num_heads
        sides = []
        for factor in (1 + step, 1 - step):
            scale = torch.ones(int(heads), proj.in_features // int(heads), dtype=torch.float64)  # type: ignore[operator, arg-type]
            scale[int(head)] = factor
            with proj.register_forward_pre_hook(lambda _, a, scale=scale: (a[0] * scale.flatten(),)):
                sides.append(loss(model, name).item())
        assert found[unit] == pytest.approx(abs(sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("slots", [("attn.q", "attn.v"), ("attn.v",), ("attn.qkv",)])
def test_the_weight_view_is_taylor_over_the_heads_frozen_rows(slots: tuple[str, ...]) -> None:
    model, _ = adapted(slots=slots)
    found = score(model, Unit.head, view=View.weight).by_name()
    for block in range(3):
        weight = model.get_submodule(f"blocks.{block}.attn.qkv").weight
        assert isinstance(weight, nn.Parameter)
        weight.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(model), [weight])
        weight.requires_grad_(False)
        by_head = (gradient * weight).reshape(3, 3, -1).sum((0, 2))  # 3, H, Dh·C -> H
        for head in range(3):
            assert found[f"blocks.{block}.attn.heads.{head}"] == pytest.approx(by_head[head].abs().item())


def test_views_are_of_heads_by_taylor_alone() -> None:
    with pytest.raises(ConfigError, match=r"needs score\.unit=head score\.criterion=taylor"):
        Score(Unit.rank, Criterion.taylor, Reduction.mean_abs, ScoreOf.gate, View.output, None, 4)


def test_heads_need_a_slot_that_has_some() -> None:
    model, _ = adapted(slots=("attn.proj", "mlp.fc1"))
    with pytest.raises(ConfigError, match=r"score\.unit = head needs one of the method\.slots attn\.q"):
        score(model, Unit.head)


@pytest.mark.parametrize("effect", list(Effect))
def test_a_masked_model_gives_the_logits_of_zeroed_parts_and_holds_no_zeros(effect: Effect) -> None:
    model, adaptation = adapted()
    pruned = ("blocks.0.attn.heads.1", *(f"blocks.1.attn.heads.{head}" for head in range(3)))
    Mask.of(Unit.head, effect, pruned).apply(model, adaptation)
    assert adaptation.owners()["blocks.1.attn.v"] is None
    tensors = adaptation.tensors()
    assert tensors["blocks.0.attn.q.up"].shape == (16, 3)
    assert not any(name.startswith("blocks.1.") for name in tensors)
    assert all(tensor.count_nonzero() == tensor.numel() for tensor in tensors.values())

    other, dense = adapted()
    for position in dense.each():
        for head in range(3):
            if f"{position.site.name.rpartition('.')[0]}.heads.{head}" in pruned:
                assert position.owner is not None
                position.owner.up.data[head_rows(position.site, head)] = 0
    if effect is Effect.attention:
        other.get_submodule("blocks.0.attn.proj").weight.data[:, 8:16] = 0  # type: ignore[index, union-attr]
        other.get_submodule("blocks.1.attn.proj").weight.data[:] = 0  # type: ignore[index, union-attr]
    x = batches()[0][0]
    assert torch.allclose(model(x), other(x), atol=1e-12)


def test_a_site_that_lost_every_rank_has_no_adapter() -> None:
    model, adaptation = adapted()
    Mask.of(Unit.rank, Effect.adapter, tuple(f"blocks.0.attn.q.ranks.{r}" for r in range(3))).apply(
        model, adaptation
    )
    assert adaptation.owners()["blocks.0.attn.q"] is None
    assert torch.isfinite(model(batches()[0][0])).all()


def test_the_optimizers_state_is_cut_as_the_parameters_are() -> None:
    model, adaptation = adapted()
    mask = Mask.of(Unit.rank, Effect.adapter, ("blocks.0.attn.q.ranks.1", "blocks.2.attn.v.ranks.0"))
    before = {f"adapter.{name}": tensor for name, tensor in adaptation.tensors().items()}
    state = {f"{name}::exp_avg": tensor for name, tensor in before.items()} | {
        f"{name}::step": torch.tensor(3.0) for name in before
    }
    left = left_of(state | {"head.weight::exp_avg": torch.ones(4)}, mask.cuts(adaptation))
    mask.apply(model, adaptation)
    for name, tensor in adaptation.tensors().items():
        assert torch.equal(left[f"adapter.{name}::exp_avg"], tensor)
        assert left[f"adapter.{name}::step"] == 3
    assert torch.equal(left["head.weight::exp_avg"], torch.ones(4))


@pytest.mark.parametrize(
    "pruned", [("blocks.9.attn.heads.0",), ("blocks.0.attn.heads.3",), ("blocks.0.mlp.heads.0",)]
)
def test_a_mask_of_units_that_are_not_there_is_refused(pruned: tuple[str, ...]) -> None:
    model, adaptation = adapted()
    with pytest.raises(CorruptArtifact, match="which is not there"):
        Mask.of(Unit.head, Effect.adapter, pruned).apply(model, adaptation)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"unit": "head", "effect": "adapter", "gone": ["blocks.0.attn.heads.1"], "notes": []},
        {"unit": "head", "effect": "adapter", "gone": {"blocks.0.attn": "one"}, "notes": []},
        {"unit": "adapter", "effect": "adapter", "gone": {}, "notes": []},
        {"unit": "head", "effect": "none", "gone": {}, "notes": []},
        {"unit": "head", "effect": "adapter", "gone": {"blocks.0.attn": 3}, "notes": []},
        {"unit": "head", "effect": "adapter", "gone": {"blocks.0.attn": "1,0-1"}, "notes": []},
        {"unit": "head", "effect": "adapter", "gone": {"blocks.0.attn": "0-999999999"}, "notes": []},
        {"unit": "head", "effect": "adapter", "gone": {}, "notes": [3]},
    ],
)
def test_what_is_no_mask_is_refused(value: object) -> None:
    with pytest.raises(CorruptArtifact, match="not a mask"):
        Mask.from_json(value)


def test_a_mask_survives_json() -> None:
    pruned = tuple(f"blocks.0.attn.q.ranks.{index}" for index in (0, 1, 2, 5, 7, 8))
    mask = Mask.of(Unit.rank, Effect.adapter, pruned, ("a note",))
    assert mask.to_json()["gone"] == {"blocks.0.attn.q": "0-2,5,7-8"}
    assert Mask.from_json(mask.to_json()) == mask
