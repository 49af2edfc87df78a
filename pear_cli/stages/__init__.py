"""The stages of an experiment: each loads, computes and saves.

They load torch, and are imported when one has work to do: what is in the store is found without.
"""

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.step import Step
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store
from pear_cli.system import progress


def make(
    step: Step, experiment: Experiment, store: Store, inputs: Mapping[str, Artifact], output: Path | None
) -> Artifact:
    with nullcontext() if "torch" in sys.modules else progress.doing("importing torch and timm"):
        from pear_cli.stages import making

    return making.make(step, experiment, store, inputs, output)
