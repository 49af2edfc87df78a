"""Train: dense adaptation first, continual adaptation after sharing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from pear_cli.backbone import batch_norm
from pear_cli.config.choices import BatchNorm, OptimizerState, Phase, Schedule, Select
from pear_cli.data import soundness
from pear_cli.data.dataset import SPOKEN
from pear_cli.errors import ConfigError
from pear_cli.experiment.experiment import Experiment
from pear_cli.model import costs as accounting
from pear_cli.model import model as models
from pear_cli.model.description import Description
from pear_cli.model.load import OPTIMIZER, kept_knowledge, load_model
from pear_cli.stages.job import Job, Result, Task
from pear_cli.stages.resumable import Resumable, put, take
from pear_cli.system import processes, progress
from pear_cli.system.processes import Team
from pear_cli.training import engine
from pear_cli.training.engine import Trainer


def train(job: Job) -> Result:
    """Train the adapters and the classifier of one phase; keep the epoch that `select` names."""
    experiment, shared, team = job.experiment, _is_shared(job), processes.team()
    check_team(experiment, team)
    soundness.check(experiment.dataset, {**job.step.data, **experiment.plan["eval"].data})
    memory = accounting.PeakMemory(job.device)
    with team.leading(job.order), job.tracker() as tracker:
        model, description, trainer = begin(job, team)
        held_out = _held_out(experiment.select)
        watched = (
            job.batches(experiment.dataset.test_split if held_out == "test" else held_out, model, description)
            if held_out
            else None
        )

        if watched is not None:
            progress.say(
                f"training on {len(trainer.train)} images; "
                f"{len(watched)} {SPOKEN[held_out]} images choose the epoch"
            )
        epochs = experiment.adaptation(job.step.round) if shared else range(experiment.dense_epochs)
        run = Resumable(job.workspace / "training.safetensors")
        run.resume(model, trainer)
        if not run.history:
            size, optim = models.input_size(model), experiment.optim
            models.adaptation(model).check_called_by(model, size)
            batch_norm.check_batches(model, size, len(trainer.train), optim.batch_size)
        for epoch, record in enumerate(run.history):
            tracker.log(record, epoch + 1)
        if team.size > 1:
            team.share(take(model, trainer))
        seconds, images = 0.0, len(trainer.train)
        with (
            progress.ticker(job.step.name, len(epochs), done=run.resumed_at, images=images) as ticker,
            _told(job.step.name, run, len(epochs)),
        ):

            def watch(seen: int, measured: engine.Measured) -> None:
                ticker.within(seen / images, lambda: _note(measured()).replace(" train ", " "))

            for epoch in epochs[len(run.history) :]:
                with accounting.Stopwatch() as stopwatch, team.step(epoch):
                    record = trainer.epoch(epoch, watch)
                if watched is not None:
                    result = engine.evaluate(model, watched, job.device)
                    record |= {f"{held_out}_accuracy": result.accuracy, f"{held_out}_loss": result.loss}
                seconds += stopwatch.seconds
                run.add(record, model, trainer, held_out)
                tracker.log(record | {"images_per_second": images / stopwatch.seconds}, len(run.history))
                ticker.step(_note(record), to=len(run.history))

    selected = run.choose(model, trainer)
    kept = kept_knowledge(job.inputs["checkpoint"]) if shared else {}
    job.save_model(model, description, kept)
    job.draft.save_tensors(OPTIMIZER, trainer.state())
    job.draft.save_json("history", run.history)
    done = len(run.history)
    metrics: dict[str, object] = {
        "epochs": done,
        "selected_epoch": selected + 1,
        "select": experiment.select.value,
    }
    metrics |= {k: v for k, v in run.history[selected].items() if k != "lr"} if run.history else {}
    costs: dict[str, object] = {**accounting.parameters(model, kept), "peak_memory_bytes": memory.bytes()}
    costs["macs_per_image"] = accounting.macs_per_image(model, description.size)
    if seconds:
        costs["train_images_per_second"] = (done - run.resumed_at) * len(trainer.train) / seconds
    return Result(metrics, costs)


def train_beside(task: Task) -> None:
    """Train with the main process, on this one's part of every batch, for as long as it trains."""
    team = processes.team()
    model, _, trainer = begin(task, team)
    if (state := team.share()) is None:
        return
    put(model, trainer, state)
    while (epoch := team.share()) is not None:
        trainer.epoch(epoch)


def begin(task: Task, team: Team) -> tuple[nn.Module, Description, Trainer]:
    """The model as training starts from it, and its trainer, on every process or on none."""
    failure = None
    try:
        with progress.doing(f"building {task.experiment.backbone.name}"):
            model, description, state = _shared_start(task) if _is_shared(task) else _dense_start(task)
        model.to(task.device.device)
        trainer = _trainer(task, model, description)
        trainer.restore(state)
    except Exception as error:
        failure = error
    team.agree(failure)
    return model, description, trainer


def check_team(experiment: Experiment, team: Team) -> None:
    """Refuse a number of processes that is not that of the job, and what cannot share a batch."""
    wanted, method = experiment.runtime.processes, experiment.method
    if wanted is not None and wanted != team.size:
        raise ConfigError(
            f"runtime.processes = {wanted}, but this pear was started as {team.size}: all jobs of a sweep "
            "have the same number, and with accelerate launch it is that of --num_processes"
        )
    mixes = {
        type(method).__name__: (method.mixes_images, "method.monoscale=true"),
        "BatchNorm": (experiment.backbone.batch_norm is BatchNorm.train, "backbone.batch_norm=frozen"),
    }
    for name, (mixing, otherwise) in mixes.items():
        if team.size > 1 and mixing:
            raise ConfigError(
                f"{name} averages over each batch in training, and {team.size} processes see a part of it "
                f"each; use runtime.processes=1, or {otherwise}"
            )


def _dense_start(job: Task) -> tuple[nn.Module, Description, dict[str, Tensor]]:
    """A new model, its description, and no optimizer state."""
    e = job.experiment
    classes = e.dataset.classes()
    model = models.create(e.backbone, e.method, len(classes), e.seed)
    described = models.describe(
        model,
        backbone=e.backbone,
        weights=job.step.backbone,
        method=e.method_node(),
        dataset=e.dataset,
        classes=classes,
        grey_range=e.dataset.white(),
    )
    return model, described, {}


def _shared_start(job: Task) -> tuple[nn.Module, Description, dict[str, Tensor]]:
    """The model of the knowledge checkpoint, and AdamW's state of the adapters that were kept."""
    checkpoint = job.inputs["checkpoint"]
    model, description = load_model(checkpoint)
    keep = job.experiment.optim.optimizer_state is OptimizerState.keep
    return model, description, checkpoint.tensors(OPTIMIZER) if keep else {}


def _is_shared(job: Task) -> bool:
    return "checkpoint" in job.step.inputs


def _trainer(job: Task, model: nn.Module, description: Description) -> Trainer:
    """The trainer of a phase; `continued` gives both phases one schedule."""
    optim, phase = job.experiment.optim, Phase.shared if _is_shared(job) else Phase.dense
    data = job.batches(job.experiment.dataset.train_split, model, description)
    an_epoch = engine.updates_per_epoch(len(data), optim)
    first, epochs = 0, optim.shared_epochs if phase is Phase.shared else job.experiment.dense_epochs
    if optim.schedule is Schedule.continued:
        first, epochs = (optim.dense_epochs if phase is Phase.shared else 0), optim.epochs
    served = {f"adapter.{home}": count for home, count in models.adaptation(model).served().items()}
    return Trainer(
        model=model,
        trained=models.trained(model),
        train=data,
        optim=optim,
        schedule=engine.Schedule(optim, updates=epochs * an_epoch, first=first * an_epoch),
        where=job.device,
        seed=job.experiment.seed,
        phase=phase.value,
        served=served,
        augment=job.experiment.dataset.augment,
        team=processes.team(),
    )


def _held_out(select: Select) -> str:
    """What the kept epoch is chosen on; empty for the last epoch."""
    return {Select.last: "", Select.val: "val200", Select.test_oracle: "test"}[select]


def _note(record: Mapping[str, float]) -> str:
    accuracies = [
        f"{SPOKEN.get(n.partition('_')[0], 'train')} {value:.3f}"
        for n, value in record.items()
        if n.endswith("_accuracy")
    ]
    return " ".join([f"loss {record['train_loss']:.3f} accuracy", *accuracies])


@contextmanager
def _told(name: str, run: Resumable, epochs: int) -> Iterator[None]:
    """Let an interruption say which epochs are kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if run.history:
            stop.add_note(f"{name} up to epoch {len(run.history)} of {epochs}")
        raise
