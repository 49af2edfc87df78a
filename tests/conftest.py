"""One finished experiment on a tiny model, made once for all tests that only read it."""

import runpy
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# The same examples each time, and no deadline: on a busy machine a test may take any time.
settings.register_profile("pear", deadline=None, derandomize=True)
settings.load_profile("pear")


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
    from omegaconf import OmegaConf

    from pear_cli.experiment.experiment import Experiment
    from pear_cli.experiment.step import ORDER
    from pear_cli.stages.perform import perform_all
    from pear_cli.store.store import Store

    tiny = runpy.run_path(str(Path(__file__).parent / "stages" / "conftest.py"))["TINY"]
    experiment = Experiment.from_config(OmegaConf.create(tiny))
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
