"""Perform an audit: a new model, the same at work, the same pruned."""

import dataclasses
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from pear_cli.audit.checks import AT_START, AT_WORK, prune
from pear_cli.audit.finding import CLASSES, IMAGES, SPREAD, Check, Finding, Subject, Verdict
from pear_cli.backbone import backbones, identity
from pear_cli.errors import PearError
from pear_cli.experiment.experiment import Experiment
from pear_cli.model import models
from pear_cli.training import engine

ROWS = len(AT_START) + 2 * len(AT_WORK) + 1
"""Of an audit, at most."""

PACKAGE = Path(__file__).parent.parent


def audit(experiment: Experiment) -> Iterator[tuple[str, Finding]]:
    """Check the model of an experiment, as training makes it, in float32 on the CPU.

    Images, the classifier and the importance of the units are noise, always the same: no data is read, and
    the zero classifier that training starts from would hide everything. So would adapters at the identity:
    after the first checks, trained tensors of zeros have other values, and so have frozen scales of zeros
    where the backbone's weights are random.

    Yields:
        Each check's name and finding, in order. One that raises an error has failed.

    Raises:
        ConfigError: there is no such model: unknown weights, or slots that the backbone has not.
    """
    engine.device(dataclasses.replace(experiment.runtime, device="cpu"))  # sets the number of threads
    subject = new(experiment)
    yield from _findings(subject, AT_START)
    for tensor in models.trained(subject.model).values():
        if not tensor.any():
            tensor.data.copy_(subject.noise_like(tensor))
    if identity.is_random(experiment.backbone):
        _stir(subject)
    yield from _findings(subject, AT_WORK)
    pruned = _tried(prune, subject)
    yield "pruned", pruned
    if pruned.verdict is Verdict.ok:
        yield from ((f"pruned: {name}", finding) for name, finding in _findings(subject, AT_WORK))


def _stir(subject: Subject) -> None:
    """Give noise to frozen scales that random weights start at zero, such as a residual branch's last norm.

    They would hide what adapters behind them do. Zeros of trained weights stay: those hide it for good.
    """
    own = {id(parameter) for parameter in models.adaptation(subject.model).parameters()}
    zero = {
        name: parameter
        for name, parameter in subject.model.named_parameters()
        if parameter.ndim < 2 and not name.endswith("bias") and id(parameter) not in own
        if not parameter.requires_grad and not parameter.any()
    }
    for parameter in zero.values():
        parameter.data.copy_(subject.noise_like(parameter))
    subject.stirred = tuple(zero)


def new(experiment: Experiment) -> Subject:
    """The model that training would start from, but for its classifier, and the noise to try it on."""
    seed = engine.derive(experiment.seed, "audit")  # another one than a stored model is made again with
    noise = torch.Generator().manual_seed(seed)
    model = models.create(experiment.backbone, experiment.method, CLASSES, seed)
    size = models.input_size(model)
    for parameter in backbones.head(model).parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else SPREAD
        parameter.data.copy_(torch.randn(parameter.shape, generator=noise) * spread)
    description = models.describe(
        model,
        backbone=experiment.backbone,
        weights=identity.weights_hash(experiment.backbone),
        method=experiment.method_node(),
        dataset=experiment.dataset,
        classes=tuple(f"class {index}" for index in range(CLASSES)),
    )
    images = torch.randn(IMAGES, 3, size, size, generator=noise)
    return Subject(experiment, model.eval(), description, {}, images, noise)


def _findings(subject: Subject, checks: Mapping[str, Check]) -> Iterator[tuple[str, Finding]]:
    return ((name, _tried(check, subject)) for name, check in checks.items())


def _tried(check: Check, subject: Subject) -> Finding:
    try:
        return check(subject)
    except Exception as error:  # whatever a method does wrong, the other checks say more of it
        text = " ".join(str(error).split())
        ours = isinstance(error, PearError)
        return Finding(
            Verdict.failed, None, text if ours else f"{type(error).__name__}: {text} ({_where(error)})"
        )


def _where(error: Exception) -> str:
    """The last line of this package that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    last = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)][-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
