"""How alike adapters are, and which images that is measured on."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.lora import LoRA
from pear_cli.config.choices import Criterion, Reduction, ScoreOf, Unit, View
from pear_cli.config.settings import Score
from pear_cli.data.images import Images
from pear_cli.scoring.measure import calibration, measure
from pear_cli.scoring.similarity import linear_cka
from pear_cli.training.batches import Batches
from pear_cli.training.devices import Device

Q = "blocks.{}.attn.q"
MAGNITUDE = Score(
    Unit.adapter,
    Criterion.magnitude,
    Reduction.mean_abs,
    ScoreOf.gate,
    View.adapter,
    batches=2,
    batch_size=16,
)


def test_similarity_is_the_cka_of_both_outputs_on_the_input_of_the_first_site() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=4)
    adaptation = Adaptation(
        model, LoRA(lr=1, rank=2, scale=0.5, dropout=0.1, slots=("attn.q", "attn.v"))
    ).attach(model)
    for parameter in adaptation.parameters():
        nn.init.normal_(parameter, std=0.5)
    for adapter in adaptation.adapters().values():
        adapter.get_parameter("up").data[:, 0] = 0
    first, second = (adaptation.adapters()[Q.format(b)] for b in (0, 2))
    second.load_state_dict(first.state_dict())
    second.get_parameter("up").data.mul_(-3)
    batches = [(torch.randn(4, 3, 16, 16), torch.arange(4)) for _ in range(2)]
    where = Device(torch.device("cpu"), torch.float32)
    similarity = measure(model, lambda: batches, MAGNITUDE, where, seed=0).similarity
    assert set(similarity[Q.format(1)]) == {Q.format(0), Q.format(2)}  # q and v never share
    assert similarity[Q.format(0)][Q.format(2)] == pytest.approx(1)
    assert similarity[Q.format(1)][Q.format(2)] == pytest.approx(similarity[Q.format(1)][Q.format(0)])
    assert 0 < similarity[Q.format(1)][Q.format(2)] < 1


def test_linear_cka_equals_its_gram_matrix_form() -> None:
    x, y = torch.randn(2, 20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centre = torch.eye(20, dtype=torch.float64) - 1 / 20
    gram_x, gram_y = (centre @ side @ side.T @ centre for side in (x, y))
    expected = (gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm())
    assert linear_cka(x, y) == pytest.approx(expected.item())
    assert linear_cka(x, 2 * x + 1) == pytest.approx(1)
    assert linear_cka(x, torch.ones(20, 3, dtype=torch.float64)) == 0


def test_calibration_takes_its_batches_in_one_mixed_order() -> None:
    labels = torch.arange(40) // 10  # class by class
    images = Images(
        torch.zeros(40, 16, 16, 3, dtype=torch.uint8).numpy(), labels.numpy(), ("a", "b", "c", "d")
    )
    split = Batches(images, ((0.5,) * 3, (0.5,) * 3), torch.device("cpu"))
    start = calibration(split, MAGNITUDE)
    drawn = [y.tolist() for _, y in start()]
    assert [len(y) for y in drawn] == [16, 16]
    assert drawn == [y.tolist() for _, y in start()]
    assert all(len(set(y)) > 2 for y in drawn)
