"""The criteria against closed forms, finite differences and removals by hand, and Kendall's tau."""

import math
from collections.abc import Iterable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adaptformer import AdaptFormer
from pear_cli.adapters.lora import LoRA
from pear_cli.adapters.method import Method
from pear_cli.config.choices import Criterion, Reduction, ScoreOf, Unit, View
from pear_cli.config.settings import Score
from pear_cli.errors import ConfigError, DataError, TrainingError
from pear_cli.scoring.criteria import CRITERIA
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.measure import kendall_tau, measure, passes
from pear_cli.training.devices import Device

CPU = Device(torch.device("cpu"), torch.float32)
LORA = LoRA(lr=1, rank=2, scale=0.5, dropout=0.1, slots=("attn.q", "attn.v"))
BOTTLENECK = AdaptFormer(lr=1, rank=2, scale=0.5, dropout=0.1, bias=False, slots=("mlp",))
WITH_BIASES = AdaptFormer(lr=1, rank=2, scale=0.5, dropout=0.1, bias=True, slots=("mlp",))
Q, V = "blocks.{}.attn.q", "blocks.{}.attn.v"


def adapted(method: Method, seed: int = 0) -> tuple[nn.Module, Adaptation]:
    """A small model in float64 whose adapters and classifier are no longer zero."""
    torch.manual_seed(seed)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=4)
    model.requires_grad_(False)
    adaptation = Adaptation(model, method).attach(model)
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(model.get_parameter("head.weight"))
    model.get_submodule("head").requires_grad_(True)
    return model.double().train(), adaptation


def batches(count: int = 3, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 16, 16, generator=generator, dtype=torch.float64),
            torch.randint(4, (size,), generator=generator),
        )
        for _ in range(count)
    ]


DATA = batches()


def score(
    model: nn.Module,
    criterion: Criterion = Criterion.taylor,
    reduction: Reduction = Reduction.mean_abs,
    of: ScoreOf = ScoreOf.gate,
    data: Iterable[tuple[Tensor, Tensor]] = DATA,
    seed: int = 0,
) -> Importance:
    config = Score(Unit.adapter, criterion, reduction, of, View.adapter, batches=None, batch_size=4)
    return measure(model, lambda: data, config, CPU, seed)


def loss(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean cross-entropy of all images, in eval mode."""
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    return F.cross_entropy(model.eval()(x), y)


def close(first: Importance, second: Importance, factor: float = 1) -> None:
    assert second.scores == pytest.approx([factor * s for s in first.scores], rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("method", [LORA, BOTTLENECK, WITH_BIASES])
def test_taylor_importance_is_the_gradient_of_a_gate_on_the_adapters_output(method: Method) -> None:
    model, adaptation = adapted(method)
    found = score(model, reduction=Reduction.abs_of_sum, data=DATA[:1])
    step = 1e-5
    for site, value in found.by_name().items():
        (position,) = adaptation.at(site)
        sides = []
        for gate in (1 + step, 1 - step):
            position.gate = torch.tensor(gate, dtype=torch.float64)
            sides.append(loss(model, DATA[:1]).item())
        position.gate = None
        assert value == pytest.approx(abs(sides[0] - sides[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("method", [LORA, BOTTLENECK])
@pytest.mark.parametrize("reduction", [Reduction.mean_abs, Reduction.abs_of_sum, Reduction.squared])
def test_taylor_over_up_is_that_of_the_gate_and_over_all_twice_it(
    method: Method, reduction: Reduction
) -> None:
    model, _ = adapted(method)
    gate = score(model, reduction=reduction)
    close(gate, score(model, reduction=reduction, of=ScoreOf.up))
    close(gate, score(model, reduction=reduction, of=ScoreOf.all), 4 if reduction is Reduction.squared else 2)


def test_taylor_over_all_is_not_twice_the_gate_with_biases() -> None:
    model, _ = adapted(WITH_BIASES)
    gate, everything = score(model), score(model, of=ScoreOf.all)
    assert everything.scores != pytest.approx([2 * s for s in gate.scores], rel=1e-3)


def test_the_reductions_are_those_of_the_signed_batch_terms() -> None:
    model, _ = adapted(LORA)
    found = score(model, of=ScoreOf.up, reduction=Reduction.sum_abs)
    adaptation = model.adaptation
    assert isinstance(adaptation, Adaptation)
    terms, elements = [], 0.0
    up = adaptation.adapters()[Q.format(1)].get_parameter("up")
    for batch in DATA:
        (grad,) = torch.autograd.grad(loss(model, [batch]), [up])
        product = grad * up
        terms.append(product.sum().item())
        elements += product.abs().sum().item()
    index = [unit.name for unit in found.units].index(Q.format(1))
    assert found.scores[index] == pytest.approx(elements)
    expected = {
        Reduction.mean_abs: sum(map(abs, terms)) / 3,
        Reduction.abs_of_sum: abs(sum(terms)),
        Reduction.squared: sum(t * t for t in terms) / 3,
    }
    for reduction, value in expected.items():
        assert score(model, reduction=reduction).scores[index] == pytest.approx(value)


@pytest.mark.parametrize(
    "criterion", [c for c in CRITERIA if c not in (Criterion.random, Criterion.gradient)]
)
def test_a_unit_whose_up_is_zero_scores_zero(criterion: Criterion) -> None:
    model, adaptation = adapted(BOTTLENECK)
    silent = adaptation.adapters()["blocks.1.mlp"]
    nn.init.zeros_(silent.get_parameter("up"))
    if criterion is Criterion.magnitude:
        nn.init.zeros_(silent.get_parameter("down"))
    found = score(model, criterion)
    assert found.by_name()["blocks.1.mlp"] == 0
    assert found.by_name()["blocks.0.mlp"] != 0
    assert set(found.similarity["blocks.1.mlp"].values()) == {0.0}


@settings(max_examples=8, deadline=None)
@given(c=st.floats(0.1, 10).filter(lambda c: abs(c - 1) > 0.01), seed=st.integers(0, 100))
def test_rescaling_down_and_up_changes_magnitude_but_neither_taylor_nor_fisher(c: float, seed: int) -> None:
    model, adaptation = adapted(BOTTLENECK, seed)
    kinds = (Criterion.taylor, Criterion.fisher, Criterion.magnitude)
    before = [score(model, kind) for kind in kinds]
    for adapter in adaptation.adapters().values():
        adapter.get_parameter("down").data.mul_(c)
        adapter.get_parameter("up").data.div_(c)
    after = [score(model, kind) for kind in kinds]
    close(before[0], after[0])
    close(before[1], after[1])
    assert after[2].scores != pytest.approx(before[2].scores, rel=1e-3)


def test_gradient_fisher_and_magnitude_are_their_formulas() -> None:
    model, adaptation = adapted(WITH_BIASES)
    adapter = adaptation.adapters()["blocks.2.mlp"]
    weights = list(adapter.parameters())
    norms, information = [], []
    for batch in DATA:
        grads = torch.autograd.grad(loss(model, [batch]), weights)
        norms.append(torch.cat([g.flatten() for g in grads]).norm().item())
        information.append(sum((g * w).square().sum().item() for g, w in zip(grads, weights, strict=True)))
    magnitude = torch.cat([w.flatten() for w in weights]).norm().item()
    assert score(model, Criterion.gradient).scores[2] == pytest.approx(sum(norms) / 3)
    assert score(model, Criterion.fisher).scores[2] == pytest.approx(sum(information) / 3)
    assert score(model, Criterion.magnitude).scores[2] == pytest.approx(magnitude)


def test_ablation_is_the_signed_change_of_the_loss_when_the_adapter_is_taken_out() -> None:
    model, adaptation = adapted(LORA)
    data = [*DATA, (DATA[0][0][:1], DATA[0][1][:1])]  # a last, smaller batch
    found = score(model, Criterion.ablation, data=data).by_name()
    whole = loss(model, data).item()
    for site in adaptation.adapters():
        (position,) = adaptation.at(site)
        owner, position.owner = position.owner, None
        assert found[site] == pytest.approx(loss(model, data).item() - whole, rel=1e-9)
        position.owner = owner
    assert min(found.values()) < 0 < max(found.values())


def test_activation_compares_the_update_with_the_output_of_the_frozen_module() -> None:
    model, adaptation = adapted(LORA)
    seen: list[Tensor] = []
    (position,) = adaptation.at(V.format(0))

    def see(module: nn.Module, args: tuple[Tensor, Tensor], update: Tensor) -> None:
        seen.append((update.norm(dim=-1) / args[1].norm(dim=-1)).mean())

    handle = position.register_forward_hook(see)
    loss(model, DATA)
    handle.remove()
    expected = seen[0].item()  # all batches are of one size: the mean over batches is that over images
    assert score(model, Criterion.activation).by_name()[V.format(0)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("criterion", [Criterion.taylor, Criterion.ablation])
def test_a_shared_adapter_is_one_unit_gated_at_all_its_sites(criterion: Criterion) -> None:
    model, adaptation = adapted(BOTTLENECK)
    sites = [site.name for site in adaptation.sites]
    adaptation.share({sites[0]: sites[1], sites[1]: sites[1], sites[2]: sites[2]})
    found = score(model, criterion, Reduction.abs_of_sum, data=DATA[:1])
    assert [unit.name for unit in found.units] == sites[1:]

    def gated(value: float) -> float:
        for position in adaptation.at(sites[0], sites[1]):
            position.gate = torch.tensor(value, dtype=torch.float64)
        return loss(model, DATA[:1]).item()

    expected = abs(gated(1 + 1e-5) - gated(1 - 1e-5)) / 2e-5
    if criterion is Criterion.ablation:
        expected = gated(0) - gated(1)
    assert found.scores[0] == pytest.approx(expected, rel=1e-5)


def test_the_gate_of_a_shared_adapter_is_taylor_over_its_up() -> None:
    model, adaptation = adapted(LORA)
    adaptation.share({s.name: s.name.replace("blocks.0", "blocks.1") for s in adaptation.sites})
    close(score(model), score(model, of=ScoreOf.up))


def test_stability_is_kendalls_tau_of_the_even_and_the_odd_batches() -> None:
    model, _ = adapted(LORA)
    even, odd = score(model, data=DATA[::2]), score(model, data=DATA[1::2])
    assert score(model).kendall_tau == pytest.approx(kendall_tau(even.scores, odd.scores))
    assert even.kendall_tau is not None
    assert odd.kendall_tau is None  # one batch
    assert score(model, Criterion.magnitude).kendall_tau is None


def test_random_scores_depend_on_the_seed_alone() -> None:
    model, _ = adapted(LORA)
    first, again, other = (score(model, Criterion.random, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.scores != other.scores


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("fails", [False, True])
def test_scoring_leaves_the_model_as_it_was(criterion: Criterion, fails: bool) -> None:
    model, adaptation = adapted(LORA)
    loss(model.train(), DATA[:1]).backward()  # type: ignore[no-untyped-call]
    model.train()
    model.get_submodule("blocks").eval()

    def trace() -> list[object]:
        parameters = [
            (p.sum().item(), p.requires_grad, p.grad, p.grad is None or p.grad.sum().item())
            for p in model.parameters()
        ]
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
        return [*parameters, *hooks, *(p.gate for p in adaptation.each()), torch.random.get_rng_state().sum()]

    before = trace()
    passes = 0

    def broken(module: nn.Module, args: object) -> None:
        nonlocal passes
        passes += 1
        if passes > (0 if criterion in (Criterion.magnitude, Criterion.random) else 2):
            raise RuntimeError("out of memory")

    if fails:
        handle = model.get_submodule("head").register_forward_pre_hook(broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            score(model, criterion, data=DATA[:2])
        handle.remove()
    else:
        assert score(model, criterion) == score(model, criterion)  # bit for bit, with dropout off
    assert all(a is b or a == b for a, b in zip(before, trace(), strict=True))


def test_a_score_that_is_not_finite_names_its_unit() -> None:
    model, adaptation = adapted(LORA)
    adaptation.adapters()[Q.format(2)].get_parameter("up").data.fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"magnitude score of blocks\.2\.attn\.q is inf"):
        score(model, Criterion.magnitude)
    with pytest.raises(
        TrainingError, match=r"similarity of blocks\.0\.attn\.q and blocks\.2\.attn\.q is nan"
    ):
        score(model, Criterion.random)


def test_nothing_to_score_and_nothing_to_score_on_are_errors() -> None:
    model, _ = adapted(LORA)
    with pytest.raises(DataError, match="no calibration images"):
        score(model, data=[])
    with pytest.raises(ConfigError, match="nothing to score"):
        score(nn.Linear(2, 2))


@pytest.mark.parametrize("unit", [Unit.adapter, Unit.rank])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_it_is_known_how_often_the_calibration_data_is_read(criterion: Criterion, unit: Unit) -> None:
    model, _ = adapted(LORA)
    config = Score(
        unit, criterion, Reduction.mean_abs, ScoreOf.gate, View.adapter, batches=None, batch_size=4
    )
    read: list[int] = []

    def data() -> Iterable[tuple[Tensor, Tensor]]:
        for batch in DATA:
            yield batch
            read.append(1)

    measure(model, data, config, CPU, 0)
    assert len(read) == (1 + passes(model, config)) * len(DATA)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_kendall_tau_counts_pairs_that_agree(pairs: list[tuple[int, int]]) -> None:
    first, second = (list(side) for side in zip(*pairs, strict=True))
    signs = [((a > c) - (a < c), (b > d) - (b < d)) for (a, b), (c, d) in combinations(pairs, 2)]
    untied = math.sqrt(sum(a * a for a, _ in signs) * sum(b * b for _, b in signs))
    expected = sum(a * b for a, b in signs) / untied if untied else None
    assert kendall_tau(first, second) == (None if expected is None else pytest.approx(expected))
