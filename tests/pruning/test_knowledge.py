"""What is kept of the pruned adapters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Adapter
from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.method import Method
from pear_cli.config.choices import KnowledgeKind, ShareRule
from pear_cli.config.settings import Knowledge
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.pruning.knowledge import decode, encode, preserve, quantise, truncate
from pear_cli.pruning.preservable import check
from pear_cli.pruning.share_map import ShareMap
from pear_cli.scoring.importance import Importance, ScoredUnit

LORA = LoRA(lr=1, rank=4, scale=0.5, dropout=0.5, slots=("attn.q", "attn.v"))
WITH_BIASES = AdaptFormer(lr=1, rank=4, scale=0.5, dropout=0.5, bias=True, slots=("mlp",))
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def adapted(method: Method) -> tuple[nn.Module, Adaptation]:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=0)
    model.requires_grad_(False)
    adaptation = Adaptation(model, method).attach(model)
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval(), adaptation


def knowledge(kind: KnowledgeKind, rank: int = 2) -> Knowledge:
    return Knowledge(kind, rank=rank, beta=1.0, learn_beta=False)


def importance(adaptation: Adaptation, scores: dict[int, float] | None = None) -> Importance:
    """The score of each block; 1 for all by default."""
    units = tuple(ScoredUnit(s.name, s.block, s.slot, s.group, 1) for s in adaptation.sites)
    values = tuple((scores or {}).get(unit.block, 1.0) for unit in units)
    return Importance("taylor", units, values, 1, None, {})


def share_map(adaptation: Adaptation, owner: dict[int, int | None]) -> ShareMap:
    """Owners by block, in every slot; other blocks own themselves."""
    owners: dict[str, str | None] = {}
    for site in adaptation.sites:
        block = owner.get(site.block, site.block)
        owners[site.name] = None if block is None else f"blocks.{block}.{site.slot}"
    rule = ShareRule.none if None in owners.values() else ShareRule.ranked
    return ShareMap(owners, {s.name: s.group for s in adaptation.sites}, rule)


def adapt(
    adaptation: Adaptation, shares: ShareMap, config: Knowledge, scores: dict[int, float] | None = None
) -> None:
    """Preserve, share, keep: what the checkpoint stage does."""
    stored = preserve(adaptation, shares, importance(adaptation, scores), config)
    adaptation.share(shares.owners)
    adaptation.keep(decode(stored, adaptation.method, adaptation.sites), config.beta, config.learn_beta)


def product(adapter: Adapter) -> Tensor:
    factors = adapter.method.factors(adapter, None)
    assert factors is not None
    return (factors.up @ factors.down).detach()


@pytest.mark.parametrize("method", [LORA, WITH_BIASES])
def test_pruning_changes_the_function_and_frozen_knowledge_alone_does_not(method: Method) -> None:
    for kind, same in ((KnowledgeKind.none, False), (KnowledgeKind.frozen, True)):
        model, adaptation = adapted(method)
        before = model(IMAGES)
        adapt(adaptation, share_map(adaptation, {0: None, 2: None}), knowledge(kind))
        assert torch.allclose(model(IMAGES), before, atol=1e-5) is same


def test_knowledge_adds_to_the_owner_at_the_pruned_site() -> None:
    _, adaptation = adapted(LORA)
    name = "blocks.0.attn.q"
    own, owner = product(adaptation.adapters()[name]), product(adaptation.adapters()["blocks.1.attn.q"])
    adapt(adaptation, share_map(adaptation, {0: 1}), knowledge(KnowledgeKind.frozen))
    x = torch.randn(1, 5, 16)
    (position,) = adaptation.at(name)
    torch.testing.assert_close(position(x, x), 0.5 * x @ (own + owner).T)


@pytest.mark.parametrize("kind", [KnowledgeKind.frozen, KnowledgeKind.int8, KnowledgeKind.lowrank])
def test_knowledge_is_frozen_has_no_dropout_and_is_not_among_the_trained(kind: KnowledgeKind) -> None:
    model, adaptation = adapted(LORA)
    adapt(adaptation, share_map(adaptation, {0: 1}), knowledge(kind))
    (position,) = adaptation.at("blocks.0.attn.v")
    assert position.knowledge is not None
    assert not any(p.requires_grad for p in position.knowledge.parameters())
    assert not any(name.startswith("blocks.0") for name in adaptation.trained())
    model.train()
    x = torch.randn(1, 5, 16)
    assert torch.equal(position.knowledge(x, x, None), position.knowledge(x, x, None))


@pytest.mark.parametrize("method", [LORA, WITH_BIASES])
@pytest.mark.parametrize("kind", [KnowledgeKind.frozen, KnowledgeKind.int8])
def test_every_weight_is_stored_and_comes_back(method: Method, kind: KnowledgeKind) -> None:
    _, adaptation = adapted(method)
    adapters = adaptation.adapters()
    stored = encode(knowledge(kind), adapters)
    assert {t.dtype for n, t in stored.items() if not n.endswith(".scale")} == {
        torch.int8 if kind is KnowledgeKind.int8 else torch.float32
    }
    found = decode(stored, method, adaptation.sites)
    assert found.keys() == adapters.keys()
    for site, adapter in adapters.items():
        for name, tensor in adapter.tensors().items():
            scale = (
                tensor.abs().amax(-1, keepdim=True) / 127 if kind is KnowledgeKind.int8 else torch.zeros(())
            )
            assert ((found[site].tensors()[name] - tensor).abs() <= scale * 0.5001).all()


def test_stored_knowledge_is_a_copy() -> None:
    _, adaptation = adapted(LORA)
    stored = encode(knowledge(KnowledgeKind.frozen), adaptation.adapters())
    before = {name: tensor.clone() for name, tensor in stored.items()}
    for parameter in adaptation.parameters():
        parameter.data.zero_()
    assert all(torch.equal(stored[name], before[name]) for name in stored)


@settings(deadline=None)
@given(
    rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 999), scale=st.floats(1e-6, 1e6)
)
def test_int8_is_off_by_at_most_half_a_step_of_its_row(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    tensor = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    tensor[0] = 0
    q, step = quantise(tensor)
    assert step.shape == (rows, 1)
    assert torch.equal(q[0], torch.zeros_like(q[0]))
    assert ((q.float() * step - tensor).abs() <= step * 0.5001).all()


@settings(deadline=None)
@given(width=st.integers(1, 5), rank=st.integers(1, 5), seed=st.integers(0, 999))
def test_lowrank_is_the_best_approximation_of_its_rank(width: int, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((7, width), (width, 9)))
    new_up, new_down = truncate(up, down, rank)
    u, s, vh = np.linalg.svd((up @ down).numpy())
    best = (u[:, :rank] * s[:rank]) @ vh[:rank]
    np.testing.assert_allclose((new_up @ new_down).numpy(), best, atol=1e-10)
    torch.testing.assert_close(new_up.norm(dim=0), new_down.norm(dim=1))  # the root of S on each side


def test_lowrank_costs_its_share_of_the_storage_and_full_rank_is_exact() -> None:
    model, adaptation = adapted(LORA)
    before = model(IMAGES)
    stored = encode(knowledge(KnowledgeKind.lowrank, 1), adaptation.adapters())
    whole = encode(knowledge(KnowledgeKind.frozen), adaptation.adapters())
    assert 4 * sum(t.numel() for t in stored.values()) == sum(t.numel() for t in whole.values())
    adapt(adaptation, share_map(adaptation, {1: None}), knowledge(KnowledgeKind.lowrank, 4))
    torch.testing.assert_close(model(IMAGES), before, atol=1e-4, rtol=1e-4)


def test_absorbing_identical_adapters_changes_nothing() -> None:
    model, adaptation = adapted(LORA)
    adapters = adaptation.adapters()
    for slot in "qv":
        adapters[f"blocks.0.attn.{slot}"].load_state_dict(adapters[f"blocks.2.attn.{slot}"].state_dict())
    before, bystander = model(IMAGES), adapters["blocks.1.attn.q"].tensors()["up"].clone()
    adapt(adaptation, share_map(adaptation, {0: 2}), knowledge(KnowledgeKind.absorb), {0: 0.3, 2: 0.7})
    torch.testing.assert_close(model(IMAGES), before, atol=1e-4, rtol=1e-4)
    assert all(position.knowledge is None for position in adaptation.each())
    assert torch.equal(adapters["blocks.1.attn.q"].tensors()["up"], bystander)


@pytest.mark.parametrize(
    ("scores", "weights"),
    [({0: 1.0, 1: 3.0}, (0.25, 0.75)), ({0: 0.0, 1: 0.0}, (0.5, 0.5)), ({0: -5.0, 1: 2.0}, (0.0, 1.0))],
)
def test_absorb_weighs_by_importance(scores: dict[int, float], weights: tuple[float, float]) -> None:
    _, adaptation = adapted(LORA)
    first, second = (product(adaptation.adapters()[f"blocks.{b}.attn.q"]) for b in (0, 1))
    adapt(adaptation, share_map(adaptation, {0: 1}), knowledge(KnowledgeKind.absorb), scores)
    u, s, vh = torch.linalg.svd(weights[0] * first + weights[1] * second)
    best = u[:, :4] * s[:4] @ vh[:4]
    torch.testing.assert_close(product(adaptation.adapters()["blocks.1.attn.q"]), best, atol=1e-5, rtol=1e-4)


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="absorb needs an owner"):
        check(knowledge(KnowledgeKind.absorb), ShareRule.none, LORA)
    with pytest.raises(ConfigError, match=r"knowledge\.rank = 5 is out of range: at most 4"):
        check(knowledge(KnowledgeKind.lowrank, 5), ShareRule.ranked, LORA)
    for kind in (KnowledgeKind.absorb, KnowledgeKind.lowrank):
        with pytest.raises(ConfigError, match=f"{kind.value} works on linear.*AdaptFormer"):
            check(knowledge(kind), ShareRule.ranked, WITH_BIASES)
    for kind in (KnowledgeKind.none, KnowledgeKind.frozen, KnowledgeKind.int8):
        check(knowledge(kind), ShareRule.none, WITH_BIASES)


def test_stored_knowledge_that_does_not_fit_is_refused() -> None:
    _, adaptation = adapted(LORA)
    stored = encode(knowledge(KnowledgeKind.int8), adaptation.adapters())
    name = "blocks.0.attn.q.up"
    spoiled = [
        ({**stored, "blocks.9.attn.q.up": stored[name]}, "fits no site"),
        ({k: v for k, v in stored.items() if k != name}, "lacks up"),
        ({k: v for k, v in stored.items() if k != name + ".scale"}, "int8 with a scale"),
        ({**stored, name: stored[name][:3], name + ".scale": stored[name + ".scale"][:3]}, "shape"),
    ]
    for tensors, message in spoiled:
        with pytest.raises(CorruptArtifact, match=message):
            decode(tensors, LORA, adaptation.sites)


def test_a_shared_adapter_is_one_object_and_its_gradient_the_sum_over_its_sites() -> None:
    model, adaptation = adapted(LORA)
    shares = share_map(adaptation, {0: 2})
    twin_model, twin = adapted(LORA)  # the same weights, not shared
    for slot in "qv":
        source, target = (twin.adapters()[f"blocks.{b}.attn.{slot}"] for b in (2, 0))
        target.load_state_dict(source.state_dict())
    adapt(adaptation, shares, knowledge(KnowledgeKind.none))
    for one in (model, twin_model):
        one(IMAGES).square().sum().backward()
    first, last = adaptation.at("blocks.0.attn.q", "blocks.2.attn.q")
    assert first.owner is last.owner is adaptation.adapters()["blocks.2.attn.q"]
    assert len(adaptation.tensors()) == 2 * 2 * 2  # two slots, two adapters each, two tensors each
    for name in ("up", "down"):
        parts = [getattr(twin.adapters()[f"blocks.{b}.attn.q"], name).grad for b in (0, 2)]
        torch.testing.assert_close(getattr(first.owner, name).grad, parts[0] + parts[1], rtol=1e-3, atol=1e-4)
