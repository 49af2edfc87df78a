"""Score: how important every unit of the dense model is."""

import math
from collections.abc import Iterator

from torch import Tensor

from pear_cli.model import costs
from pear_cli.model import score as scoring
from pear_cli.model.load import MASK, load_model
from pear_cli.pruning.mask import Mask
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.measure import calibration, passes
from pear_cli.scoring.probe import Calibration
from pear_cli.stages.job import Job, Result
from pear_cli.system import progress


def score(job: Job) -> Result:
    """Measure importance on training images, without changing a parameter."""
    memory = costs.PeakMemory(job.device)
    model, description = load_model(job.inputs["train"])
    model.to(job.device.device)
    config, split = job.experiment.score, job.experiment.dataset.train_split
    train, seed = job.batches(split, model, description), job.experiment.seed
    batches, images = calibration(train, config), len(train)
    if config.batches is not None:
        images = min(images, config.batches * config.batch_size)
    total = (1 + passes(model, config)) * math.ceil(images / config.batch_size)
    with progress.ticker(job.step.name, total) as ticker:
        counted = _counted(batches, ticker)
        importance = scoring.score(model, counted, config, job.device, seed)
    job.draft.save_json("importance", _of_all(importance, job).to_json(), indent=None)
    for line in remarks(importance):
        progress.say(line)
    metrics = {
        "units": len(importance.scores),
        "kendall_tau": importance.kendall_tau,
        "images": importance.images,
    }
    return Result(metrics, costs.parameters(model) | {"peak_memory_bytes": memory.bytes()})


def _counted(batches: Calibration, ticker: progress.Ticker) -> Calibration:
    """The same batches, each counted once it was worked on."""

    def started() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches():
            yield batch
            ticker.step()

    return started


def _of_all(left: Importance, job: Job) -> Importance:
    """The importance of all units, where earlier rounds have pruned some."""
    if "pruned" not in job.inputs:
        return left
    gone = Mask.from_json(job.inputs["pruned"].json(MASK))
    scored = Importance.from_json(job.inputs["scored"].json("importance"))
    return gone.named_before(left).among(scored)


def remarks(importance: Importance) -> list[str]:
    """What the reader of the scores must know: how stable the ranking is, and whether there is one."""
    said, tau = [], importance.kendall_tau
    if tau is not None:
        said.append(f"the ranking of {len(importance.units)} units has Kendall's τ {tau:.2f} between halves")
    if len(importance.units) > 1 and len(set(importance.scores)) == 1:
        said.append("all scores are equal: what goes is then chosen by block and slot; train for longer")
    return said
