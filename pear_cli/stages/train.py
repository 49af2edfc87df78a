"""Train: dense adaptation first, continual adaptation after sharing."""

from collections.abc import Mapping

from torch import nn

from pear_cli.config.choices import Select
from pear_cli.data import soundness
from pear_cli.data.dataset import SPOKEN
from pear_cli.model import costs
from pear_cli.model.description import Description
from pear_cli.model.load import OPTIMIZER, kept_knowledge
from pear_cli.stages.job import Job, Result, Task
from pear_cli.stages.resumable import Resumable, put, take
from pear_cli.stages.start import begin, check_team
from pear_cli.system import progress
from pear_cli.system.team import this_team
from pear_cli.training import engine
from pear_cli.training.batches import Batches
from pear_cli.training.engine import Trainer

HELD_OUT = {Select.last: "", Select.val: "val200", Select.test_oracle: "test"}
"""What the kept epoch is chosen on; empty for the last epoch."""


def train(job: Job) -> Result:
    """Train the adapters and the classifier of one phase; keep the epoch that `select` names."""
    experiment, team = job.experiment, this_team()
    check_team(experiment, team)
    soundness.check(experiment.dataset, {**job.step.data, **experiment.plan["eval"].data})
    memory, held_out = costs.PeakMemory(job.device), HELD_OUT[experiment.select]
    with team.leading(job.order), job.tracker() as tracker:
        model, description, trainer = begin(job, team)
        images, seconds, epochs = len(trainer.train), 0.0, job.epochs
        watched = _watched(job, held_out, images, model, description)
        run = Resumable(job.workspace / "training.safetensors")
        run.resume(model, trainer)
        for number, record in enumerate(run.history, start=1):
            tracker.log(record, number)
        if team.size > 1:
            team.share(take(model, trainer))
        with (
            progress.ticker(job.step.name, len(epochs), done=run.resumed_at, images=images) as ticker,
            run.told(job.step.name, len(epochs)),
        ):

            def watch(seen: int, measured: engine.Measured) -> None:
                ticker.within(seen / images, lambda: _note(measured()).replace(" train ", " "))

            for epoch in epochs[len(run.history) :]:
                with costs.Stopwatch() as stopwatch, team.step(epoch):
                    record = trainer.epoch(epoch, watch)
                if watched is not None:
                    result = engine.evaluate(model, watched, job.device)
                    record |= {f"{held_out}_accuracy": result.accuracy, f"{held_out}_loss": result.loss}
                seconds += stopwatch.seconds
                run.add(record, model, trainer, held_out)
                tracker.log(record | {"images_per_second": images / stopwatch.seconds}, len(run.history))
                ticker.step(_note(record), to=len(run.history))

    measured: dict[str, object] = {"peak_memory_bytes": memory.bytes()}
    if seconds:
        measured["train_images_per_second"] = (len(run.history) - run.resumed_at) * images / seconds
    return _saved(job, run, model, description, trainer, measured)


def train_beside(task: Task) -> None:
    """Train with the main process, on this one's part of every batch, for as long as it trains."""
    team = this_team()
    model, _, trainer = begin(task, team)
    if (state := team.share()) is None:
        return
    put(model, trainer, state)
    while (epoch := team.share()) is not None:
        trainer.epoch(epoch)


def _watched(
    job: Job, held_out: str, trained: int, model: nn.Module, description: Description
) -> Batches | None:
    """The images that choose the epoch; None where it is the last."""
    if not held_out:
        return None
    split = job.experiment.dataset.test_split if held_out == "test" else held_out
    watched = job.batches(split, model, description)
    progress.say(f"training on {trained} images; {len(watched)} {SPOKEN[held_out]} images choose the epoch")
    return watched


def _saved(
    job: Job,
    run: Resumable,
    model: nn.Module,
    description: Description,
    trainer: Trainer,
    measured: Mapping[str, object],
) -> Result:
    """Save the model of the chosen epoch, and what says how it came about and what it costs."""
    selected = run.choose(model, trainer)
    kept = kept_knowledge(job.inputs["checkpoint"]) if job.is_shared else {}
    job.save_model(model, description, kept)
    job.draft.save_tensors(OPTIMIZER, trainer.state())
    job.draft.save_json("history", run.history)
    metrics: dict[str, object] = {
        "epochs": len(run.history),
        "selected_epoch": selected + 1,
        "select": job.experiment.select.value,
    }
    metrics |= {k: v for k, v in run.history[selected].items() if k != "lr"} if run.history else {}
    macs = costs.macs_per_image(model, description.size)
    return Result(metrics, {**costs.parameters(model, kept), "macs_per_image": macs, **measured})


def _note(record: Mapping[str, float]) -> str:
    accuracies = [
        f"{SPOKEN.get(n.partition('_')[0], 'train')} {value:.3f}"
        for n, value in record.items()
        if n.endswith("_accuracy")
    ]
    return " ".join([f"loss {record['train_loss']:.3f} accuracy", *accuracies])
