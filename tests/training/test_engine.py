"""The loops that train and evaluate."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from pear_cli.config.choices import Augment, OptimizerState, Precision, Schedule, SharedGrad, Tracker
from pear_cli.config.settings import Optim, Runtime
from pear_cli.data.dataset import Normalization
from pear_cli.data.images import Images
from pear_cli.errors import ConfigError
from pear_cli.training import engine

OPTIM = Optim(
    epochs=4,
    adapt_epochs=4,
    schedule=Schedule.per_phase,
    prune_at=0.5,
    lr=0.1,
    start_lr=0.01,
    final_lr=0.001,
    weight_decay=0.0,
    batch_size=8,
    accumulate=1,
    warmup=0.25,
    clip=None,
    label_smoothing=0.0,
    mixup=0.0,
    optimizer_state=OptimizerState.keep,
    shared_grad=SharedGrad.sum,
)
CPU = engine.Device(torch.device("cpu"), torch.float32)
HALF = Normalization.half.statistics


def images(count=32, classes=3):
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    pixels = random.integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    return Images(pixels, labels.astype(np.int64), tuple("abc"[:classes]))


def trainer(optim=OPTIM, served=None, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    batches = engine.Batches(images(), HALF, torch.device("cpu"))
    schedule = engine.Schedule(optim, updates=4 * engine.updates_per_epoch(len(batches), optim))
    given = {"model": model, "trained": dict(model.named_parameters()), "train": batches, "optim": optim}
    given |= {"schedule": schedule, "where": CPU, "seed": 0, "phase": "dense", "served": served or {}}
    return engine.Trainer(**given | changes)


def test_pixels_become_normalised_channels_first():
    batches = engine.Batches(images(), ((0.2, 0.4, 0.6), (0.1, 0.2, 0.3)), torch.device("cpu"))
    x, y = batches.take(torch.tensor([3, 1]))
    expected = (
        images().pixels[[3, 1]].transpose(0, 3, 1, 2) / 255 - np.array([0.2, 0.4, 0.6])[:, None, None]
    ) / (np.array([0.1, 0.2, 0.3])[:, None, None])
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)
    assert y.tolist() == [0, 1]


def test_the_learning_rate_warms_up_and_follows_a_cosine_to_its_end():
    schedule = engine.Schedule(OPTIM, updates=16)
    assert schedule.lr(0) == OPTIM.start_lr
    assert schedule.lr(2) == pytest.approx(0.055)
    assert schedule.lr(4) == OPTIM.lr
    assert schedule.lr(10) == pytest.approx((0.1 + 0.001) / 2)
    assert schedule.lr(16) == pytest.approx(OPTIM.final_lr)


def test_one_schedule_over_both_phases_goes_on_where_the_first_stopped():
    whole, second = engine.Schedule(OPTIM, 16), engine.Schedule(OPTIM, 16, first=6)
    assert [second.lr(u) for u in range(10)] == [whole.lr(u) for u in range(6, 16)]


def test_accumulated_steps_equal_one_larger_batch():
    large, small = trainer(), trainer(replace(OPTIM, batch_size=4, accumulate=2))
    for each in (large, small):
        each.epoch(0)
    for one, other in zip(large.trained.values(), small.trained.values(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_mean_over_sites_divides_the_gradient_of_a_shared_adapter():
    def gradient(shared_grad):
        seen = {}
        each = trainer(replace(OPTIM, shared_grad=shared_grad), served={"1": 4})
        each.optimizer.step = lambda *a, **k: seen.update(
            {n: p.grad.clone() for n, p in each.trained.items()}
        )
        each.epoch(0)
        return seen

    total, mean = gradient(SharedGrad.sum), gradient(SharedGrad.mean)
    for name in total:
        torch.testing.assert_close(mean[name], total[name] / 4)


def test_an_epoch_depends_on_its_number_and_not_on_those_before_it():
    one, other = trainer(), trainer()
    torch.manual_seed(99)
    one.epoch(3)
    other.epoch(3)
    assert all(torch.equal(a, b) for a, b in zip(one.trained.values(), other.trained.values(), strict=True))


@pytest.mark.parametrize("augment", [Augment.flip_crop, Augment.randaugment])
def test_augmentation_and_mixup_of_an_epoch_depend_on_its_number_alone(augment):
    optim = replace(OPTIM, mixup=0.4)
    one, other, plain = trainer(optim, augment=augment), trainer(optim, augment=augment), trainer()
    torch.manual_seed(99)
    np.random.seed(99)
    one.epoch(3)
    for each in (other, plain):
        each.epoch(3)
    for name, trained in one.trained.items():
        assert torch.equal(trained, other.trained[name])
        assert not torch.equal(trained, plain.trained[name])


def test_the_loss_of_mixed_images_is_that_of_timms_targets():
    each = trainer(replace(OPTIM, label_smoothing=0.1))
    logits, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    targets = mixup_target(y, 3, lam=0.7, smoothing=0.1)
    found = each._loss(logits, y, y.flip(0), 0.7)
    torch.testing.assert_close(found, SoftTargetCrossEntropy()(logits, targets))


def test_the_optimizer_state_comes_back_by_name():
    one = trainer()
    one.epoch(0)
    other = trainer(model=one.model, trained=one.trained)
    other.restore(one.state())
    twin = copy.deepcopy(dict(one.trained))
    one.epoch(1)
    after = {name: p.detach().clone() for name, p in one.trained.items()}
    for name, parameter in other.trained.items():
        parameter.data.copy_(twin[name])
    other.epoch(1)
    assert all(torch.equal(after[name], p) for name, p in other.trained.items())


def test_evaluation_is_the_mean_over_all_images_whatever_the_batch():
    each = trainer()
    small, large = (engine.evaluate(each.model, each.train, CPU, size) for size in (5, 32))
    torch.testing.assert_close(small.logits, large.logits)
    assert small.accuracy == large.accuracy
    assert small.loss == pytest.approx(nn.functional.cross_entropy(large.logits, large.labels).item())


def test_per_class_accuracy_weighs_classes_equally():
    logits = torch.eye(3)[[0, 0, 0, 0, 1, 0]]
    result = engine.Evaluation(logits, torch.tensor([0, 0, 0, 0, 1, 1]))
    assert result.accuracy == pytest.approx(5 / 6)
    assert result.mean_per_class_accuracy == pytest.approx(0.75)


def test_automatic_precision_is_float32_on_a_cpu_and_a_missing_device_is_an_error():
    runtime = Runtime("cpu", Precision.auto, None, 0, "x", None, Tracker.none)
    assert engine.device(runtime).dtype is torch.float32
    with pytest.raises(ConfigError, match=r"runtime.device = cuda:99 is not available"):
        engine.device(replace(runtime, device="cuda:99"))


def test_streams_of_random_numbers_do_not_coincide():
    seeds = {engine.derive(s, p, i) for s in range(5) for p in ("a", "b") for i in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert math.isfinite(engine.derive(0, "x"))
