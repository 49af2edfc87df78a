"""How a training starts: its model, and its trainer, on every process of the job."""

from torch import Tensor, nn

from pear_cli.backbone import batch_norm
from pear_cli.config.choices import BatchNorm, OptimizerState, Phase, Schedule
from pear_cli.errors import ConfigError
from pear_cli.experiment.experiment import Experiment
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.model.load import OPTIMIZER, load_model
from pear_cli.stages.job import Task
from pear_cli.system import progress
from pear_cli.system.team import Team
from pear_cli.training import engine
from pear_cli.training.engine import Trainer


def begin(task: Task, team: Team) -> tuple[nn.Module, Description, Trainer]:
    """The model as training starts from it, and its trainer, on every process or on none."""
    failure = None
    try:
        with progress.doing(f"building {task.experiment.backbone.name}"):
            model, description, state = _shared_start(task) if task.is_shared else _dense_start(task)
        model.to(task.device.device)
        trainer = _trainer(task, model, description, team)
        trainer.restore(state)
        size = models.input_size(model)
        models.adaptation(model).check_called_by(model, size)
        batch_norm.check_batches(model, size, len(trainer.train), task.experiment.optim.batch_size)
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


def _trainer(job: Task, model: nn.Module, description: Description, team: Team) -> Trainer:
    """The trainer of a phase; `continued` gives both phases one schedule."""
    optim, phase = job.experiment.optim, Phase.shared if job.is_shared else Phase.dense
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
        team=team,
    )
