"""One finished experiment on a tiny model, made once for all tests that only read it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from omegaconf import OmegaConf

from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.read import read
from pear_cli.store.store import Store

# The same examples each time, and no deadline: on a busy machine a test may take any time.
settings.register_profile("pear", deadline=None, derandomize=True)
settings.load_profile("pear")

TINY: dict[str, Any] = {
    "dataset": {"_target_": "pear_cli.data.bundled.Bundled", "name": "digits", "root": None},
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "pretrained": False,
        "weights": None,
        "seed": 0,
        "drop_path": 0.0,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "args": {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2},
    },
    "method": {
        "_target_": "pear_cli.adapters.lora.LoRA",
        "lr": 0.01,
        "rank": 2,
        "scale": 1.0,
        "dropout": 0.1,
        "slots": ["attn.q", "attn.v"],
    },
    "score": {
        "unit": "adapter",
        "criterion": "taylor",
        "reduction": "mean_abs",
        "of": "gate",
        "view": "adapter",
        "batches": 4,
        "batch_size": 50,
    },
    "prune": {"ratio": 0.5, "by": "count", "scope": "global", "effect": "adapter", "steps": 1, "round_to": 1},
    "share": {"rule": "ranked"},
    "knowledge": {"kind": "frozen", "rank": 1, "beta": 1.0, "learn_beta": False},
    "optim": {
        "epochs": 2,
        "adapt_epochs": 2,
        "schedule": "per_phase",
        "prune_at": 0.5,
        "lr": 0.01,
        "start_lr": 1e-6,
        "final_lr": 0.0,
        "weight_decay": 0.01,
        "batch_size": 200,
        "accumulate": 1,
        "warmup": 0.1,
        "clip": 1.0,
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "optimizer_state": "keep",
        "shared_grad": "sum",
    },
    "runtime": {
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "workers": 0,
        "store": "unused",
        "processes": None,
        "tracker": "none",
    },
    "seed": 0,
    "select": "last",
    "phase": None,
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Hashes and generated images of tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Finished(NamedTuple):
    """The artifacts of a whole run by step, the experiment, and the store that holds them."""

    experiment: object
    store: object
    made: dict


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    from pear_cli.experiment.step import ORDER
    from pear_cli.stages.perform import perform_all

    experiment = read(OmegaConf.create(TINY))
    store = Store(tmp_path_factory.mktemp("finished") / "store")
    outcomes = perform_all(experiment, store)
    return Finished(experiment, store, dict(zip(ORDER, (o.artifact for o in outcomes), strict=True)))


QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")  # Hydra's logging would take pytest's handlers


class Said(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def pear(tmp_path, monkeypatch, capfd):
    """Carry out a command line in an empty folder, in this process."""
    from pear_cli.cli.app import perform

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEAR_TRACEBACK", raising=False)

    def call(*words: str) -> Said:
        capfd.readouterr()
        code = perform(words)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def quiet() -> tuple[str, ...]:
    return QUIET


@pytest.fixture
def make() -> Callable[..., Experiment]:
    """Build the tiny experiment with changes given as `node__key=value`."""

    def build(**changes: Any) -> Experiment:
        cfg = OmegaConf.create(TINY)
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, merge=False)
        return read(cfg)

    return build


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
