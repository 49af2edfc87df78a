"""One finished experiment on a tiny model, made once for all tests that only read it."""

import runpy
from pathlib import Path
from typing import NamedTuple

import pytest


class Finished(NamedTuple):
    """The artifacts of a whole run by step, the experiment, and the store that holds them."""

    experiment: object
    store: object
    made: dict


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    from omegaconf import OmegaConf

    from pear_cli.experiment import ORDER, Experiment
    from pear_cli.stages.perform import perform_all
    from pear_cli.store import Store

    tiny = runpy.run_path(str(Path(__file__).parent / "stages" / "conftest.py"))["TINY"]
    experiment = Experiment.from_config(OmegaConf.create(tiny))
    store = Store(tmp_path_factory.mktemp("finished") / "store")
    outcomes = perform_all(experiment, store)
    return Finished(experiment, store, dict(zip(ORDER, (o.artifact for o in outcomes), strict=True)))
