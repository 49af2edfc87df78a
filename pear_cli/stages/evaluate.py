"""Evaluate: the test set, once."""

from torch import nn

from pear_cli.config.choices import Metric
from pear_cli.data.dataset import SPOKEN
from pear_cli.model import costs, models
from pear_cli.model.description import Description
from pear_cli.model.load import load_model
from pear_cli.model.merge import merge
from pear_cli.stages.job import Job, Result
from pear_cli.system import progress
from pear_cli.training import engine


def evaluate(job: Job) -> Result:
    """Accuracy and loss on the test split, and what a prediction costs."""
    memory = costs.PeakMemory(job.device)
    (trained,) = job.inputs.values()
    model, description = load_model(trained)
    model.to(job.device.device)
    split = job.experiment.dataset.test_split
    test = job.batches(split, model, description)
    with progress.ticker(job.step.name, len(test), images=1) as ticker, costs.Stopwatch() as stopwatch:

        def watch(seen: int, measured: engine.Measured) -> None:
            ticker.step(to=seen)
            ticker.within(0.0, lambda: f"accuracy {measured()['accuracy']:.3f}")

        result = engine.evaluate(model, test, job.device, watch=watch)
    job.draft.save_tensors("predictions", {"logits": result.logits, "labels": result.labels})
    measured = {metric.value: getattr(result, metric.value) for metric in Metric}
    reported = job.experiment.dataset.metric.value
    progress.say(f"{reported} {100 * measured[reported]:.2f}% on {len(test)} images of {SPOKEN[split]}")
    metrics = {
        **measured,
        "loss": result.loss,
        "images": len(test),
        "select": job.experiment.select.value,
    }
    accounting = dict(trained.manifest["accounting"]) | {
        "images_per_second": len(test) / stopwatch.seconds,
        "network_params": costs.network_params(model),
        "macs_per_image": costs.macs_per_image(model, description.size),
        "peak_memory_bytes": memory.bytes(),
        **costs.latency(model, description.size, job.device),
    }
    if description.widths is not None:
        accounting |= _speed_up(job, model, description)
    return Result(metrics, accounting)


def _speed_up(job: Job, model: nn.Module, description: Description) -> dict[str, float]:
    """What pruned channels save: parameters, and, where updates are merged into the weights, time."""
    whole = models.whole(description)
    narrow, wide = (merge(network).to(job.device.device) for network in (model, whole))
    before = {"whole_network_params": costs.network_params(whole)}
    return before | costs.speed_up(narrow, wide, description.size, job.device)
