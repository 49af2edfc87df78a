"""What changes no number changes no key: settings that an experiment does not read."""

import hashlib
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pear_cli.config.node import node
from pear_cli.errors import ConfigError
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.read import read
from pear_cli.stages.perform import perform_all
from pear_cli.store.store import Store

TINY = runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))["TINY"]

CHOICES: dict[str, list[Any]] = {
    "prune.ratio": [0, 0.5],
    "prune.scope": ["global", "slot"],
    "score.criterion": ["taylor", "magnitude", "fisher", "random"],
    "score.reduction": ["mean_abs", "squared"],
    "score.batches": [1, 2],
    "share.rule": ["none", "ranked", "top"],
    "knowledge.kind": ["none", "frozen", "lowrank"],
    "optim.schedule": ["per_phase", "continued"],
    "optim.adapt_epochs": [0, 1],
    "optim.warmup": [0.0, 0.5],
    "dataset.normalization": ["backbone", "imagenet"],
}
BASELINE, ALONE = {"prune.ratio": 0}, {"share.rule": "none", "knowledge.kind": "none"}
UNREAD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"score.criterion": "magnitude"}, {"score.batches": 3, "score.batch_size": 7}),
    ({"score.criterion": "random"}, {"score.batch_size": 7}),
    ({"score.criterion": "fisher"}, {"score.reduction": "sum_abs", "score.of": "up"}),
    ({"score.batches": 1, "score.criterion": "taylor", "score.reduction": "mean_abs"},
     {"score.reduction": "abs_of_sum"}),
    (ALONE | {"score.unit": "head", "score.criterion": "taylor"}, {"score.of": "up"}),
    (ALONE | {"score.unit": "rank", "score.criterion": "taylor"}, {"score.of": "up"}),
    (ALONE | {"score.unit": "head", "prune.scope": "global"}, {"prune.scope": "slot"}),
    ({"share.rule": "none"}, {"optim.shared_grad": "mean"}),
    (BASELINE, {"score.unit": "head"}),
    (BASELINE | {"score.unit": "head"}, {"prune.effect": "attention"}),
    (BASELINE, {"score.unit": "rank", "prune.scope": "slot"}),
    (BASELINE, {"prune.by": "parameters", "share.rule": "top", "knowledge.kind": "int8"}),
    ({"knowledge.kind": "none"}, {"knowledge.beta": 0.5, "knowledge.learn_beta": True}),
    ({"knowledge.kind": "frozen"}, {"knowledge.rank": 2}),
    ({"optim.schedule": "per_phase", "optim.adapt_epochs": 0},
     {"optim.optimizer_state": "reset", "optim.shared_grad": "mean"}),
    ({"optim.warmup": 0.0}, {"optim.start_lr": 0.1}),
    ({"optim.schedule": "continued"}, {"optim.prune_at": 0.6}),
    ({"optim.schedule": "per_phase"}, {"optim.prune_at": 0.6}),
    ({"dataset.normalization": "imagenet"}, {"backbone.mean": [0.4, 0.4, 0.4]}),
    ({}, {"dataset.split_seed": 3, "dataset.crop_pct": 0.5, "dataset.train_split": "train800val200"}),
]  # fmt: skip


def config(changes: dict[str, Any]) -> Any:
    made = OmegaConf.create(TINY)
    for key, value in changes.items():
        OmegaConf.update(made, key, value, merge=False, force_add=True)
    return made


def keys(experiment: Experiment) -> dict[str, str]:
    return {name: step.key for name, step in experiment.plan.items()}


def compared(experiment: Experiment) -> dict[str, str]:
    """Its keys; at ratio 0 the scores themselves may be asked for in any way."""
    found = keys(experiment)
    return found if experiment.prune.ratio else found | {"score": ""}


@st.composite
def experiments(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A random experiment that does not read some settings, and the same with others of these."""
    unread, others = draw(st.sampled_from(UNREAD))
    drawn = {name: draw(st.sampled_from(values)) for name, values in CHOICES.items()}
    base = {"optim.epochs": 3} | drawn | unread
    assume("score.unit" not in base or base["share.rule"] == "none" == base["knowledge.kind"])
    return base, base | others


@given(experiments())
@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
def test_what_nothing_reads_changes_no_key(pair):
    base, other = pair
    try:
        one, two = read(config(base)), read(config(other))
    except ConfigError:
        assume(False)
    assert compared(one) == compared(two)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """The bytes that an experiment, as it was written, comes to."""
    store = Store(tmp_path_factory.mktemp("numbers") / "store")

    def run(changes: dict[str, Any]) -> str:
        raw = node(config(changes), Experiment, "", overrides=())
        last = perform_all(raw, store)[-1].artifact
        return hashlib.sha256(last.read("predictions.safetensors")).hexdigest()

    return run


QUICK = {"optim.epochs": 2, "optim.adapt_epochs": 1, "optim.batch_size": 500, "score.batches": 2}


@pytest.mark.parametrize(("unread", "others"), UNREAD, ids=[str(others) for _, others in UNREAD])
def test_what_changes_no_key_changes_no_number(numbers, unread, others):
    train = {"dataset.train_split": "train800val200"}
    assert numbers(QUICK | train | unread) == numbers(QUICK | train | unread | others)


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.shared_grad": "mean"},
        {"optim.optimizer_state": "reset"},
        {"optim.start_lr": 0.1, "optim.warmup": 0.5},
        {"knowledge.beta": 0.5},
        {"share.rule": "none"},
        {"prune.ratio": 0.75},
        {"score.criterion": "random"},
        {"seed": 1},
    ],
    ids=str,
)
def test_what_changes_a_number_changes_the_key(numbers, changes):
    base = QUICK | {"optim.warmup": 0.5, "dataset.train_split": "train800val200"}
    assert numbers(base) != numbers(base | changes)
    assert keys(read(config(base)))["eval"] != keys(read(config(base | changes)))["eval"]
