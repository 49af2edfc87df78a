"""The checks of an audit, one function each."""

import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save

from pear_cli.audit.finding import CLASSES, Check, Finding, Subject, Verdict, compare, says
from pear_cli.backbone import backbones
from pear_cli.config.choices import Unit
from pear_cli.errors import ConfigError
from pear_cli.model import costs, merge, models
from pear_cli.model.description import Description
from pear_cli.model.prune import apply
from pear_cli.model.rebuild import rebuild
from pear_cli.model.score import layers
from pear_cli.pruning.decide import decide
from pear_cli.scoring.importance import Importance
from pear_cli.scoring.units import units_at_work
from pear_cli.store.canonical import plain

EXACT, FAITHFUL, NEAR = 1e-6, 1e-4, 1e-2  # of max |Δlogit| / max(1, |logit|)


def identity(subject: Subject) -> Finding:
    """A new model says what the frozen backbone says, with the same classifier."""
    frozen = backbones.build(subject.experiment.backbone, CLASSES)
    backbones.head(frozen).load_state_dict(backbones.head(subject.model).state_dict())
    exact = subject.experiment.method.starts_at_identity
    return compare(
        subject.logits,
        says(frozen, subject.images),
        EXACT if exact else NEAR,
        f"a new model has the logits of the frozen backbone{'' if exact else ', nearly'}",
        f"training would not start from the frozen backbone: {subject.method}.initialise must make the "
        f"update {'zero' if exact else 'small'}",
    )


def called(subject: Subject) -> Finding:
    """The backbone goes through every module that adapters add to."""
    hosts, sites = subject.adaptation.hosts, subject.adaptation.sites
    if not hosts:
        return Finding(Verdict.none, None, f"{subject.method} has no adapters")
    for host in hosts:
        host.called = False
    subject.adaptation.check_called_by(subject.model, subject.description.size)
    return Finding(Verdict.ok, len(sites), f"sites are called, at {len(hosts)} modules")


def frozen(subject: Subject) -> Finding:
    """The backbone takes no gradient, but for what the method adapts."""
    own = {id(p) for p in (*subject.adaptation.parameters(), *backbones.head(subject.model).parameters())}
    backbone = {name: p for name, p in subject.model.named_parameters() if id(p) not in own}
    adapts = subject.experiment.method.adapts
    wrong = [name for name, p in backbone.items() if p.requires_grad != adapts(name)]
    if wrong:
        state = "frozen" if adapts(wrong[0]) else "trained"
        meaning = f"{state}, though {subject.method}.adapts says otherwise: {some(wrong)} of the backbone"
        return Finding(Verdict.failed, len(wrong), meaning)
    left = sum(not p.requires_grad for p in backbone.values())
    return Finding(Verdict.ok, left, f"of the backbone's {len(backbone)} tensors take no gradient")


def gradients(subject: Subject) -> Finding:
    """Every trained parameter takes part in training, but for those that pruned neighbours cut off."""
    trained = models.trained(subject.model)
    dead = _without_gradient(subject)
    for other in (torch.neg, subject.noise_like, torch.neg):  # a ReLU that is off is on for other values
        if not dead:
            break
        for name in dead:
            trained[name].data.copy_(other(trained[name].data))
        again = _without_gradient(subject)
        dead = [name for name in dead if name in again]
    cut_off = _cut_off(subject, dead)
    alive = f"{len(trained) - len(dead)} of {len(trained)}"
    dead = [name for name in dead if name not in cut_off]
    if dead:
        meaning = (
            f"no gradient reaches {some(dead)}: the update does not use it, the backbone goes past it, or "
            "what is frozen multiplies it by zero; do without it"
        )
        return Finding(Verdict.failed, alive, meaning)
    zero = f", once random {some(subject.stirred)} are not zero" if subject.stirred else ""
    lost = f"; {len(cut_off)} cut off by pruned neighbours: {some(cut_off)}" if cut_off else ""
    return Finding(Verdict.ok, alive, f"trained tensors get a gradient{zero}{lost}")


def _cut_off(subject: Subject, dead: Sequence[str]) -> list[str]:
    """Dead parameters that live once the zeros of pruned blocks have values again."""
    mask, adapted = subject.description.mask, subject.adaptation
    if not dead or mask is None or mask.unit is not Unit.block:
        return []
    sites = {site.module for site in adapted.sites if site.name in mask.gone}
    weights = [subject.model.get_submodule(module).get_parameter("weight") for module in sites]
    before = [weight.data.clone() for weight in weights]
    for weight in weights:
        weight.data = torch.where(weight == 0, subject.noise_like(weight), weight)
    still = _without_gradient(subject)
    for weight, values in zip(weights, before, strict=True):
        weight.data.copy_(values)
    return [name for name in dead if name not in still]


def _without_gradient(subject: Subject) -> list[str]:
    """The trained parameters that do nothing for the logits, or nothing finite, in training mode.

    What a model gathers in training may stand for a parameter in eval mode. Dropout in adapters is off.
    """
    trained = models.trained(subject.model)
    subject.model.train()
    for adapter in subject.adaptation.adapters().values():
        adapter.dropout.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=subject.noise)))  # of drop-path
        logits = subject.model(subject.images)
    loss = (logits * torch.randn(logits.shape, generator=subject.noise)).sum()
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    subject.model.eval()
    return [
        name
        for name, gradient in zip(trained, found, strict=True)
        if gradient is None or not gradient.isfinite().all() or not gradient.any()
    ]


def batch(subject: Subject) -> Finding:
    """What the model says of an image does not depend on the images beside it."""
    ends = [subject.images[:1], subject.images[-1:]]
    return compare(
        torch.cat([says(subject.model, image) for image in ends]),
        subject.logits[[0, -1]],
        FAITHFUL,
        "an image has the same logits alone and beside others",
        "an image has other logits beside others than alone, so results depend on the batch size: let eval "
        "mode use what training gathered, as Lily does with method.router_stats=running",
    )


def saved(subject: Subject) -> Finding:
    """What is made again from the stored bytes says the same."""
    text, (tensors, kept) = json.dumps(plain(subject.description.to_json())), map(load, files(subject))
    again = rebuild(Description.from_json(json.loads(text)), tensors, kept)
    for name in subject.stirred:
        again.get_parameter(name).data.copy_(subject.model.get_parameter(name))
    return compare(
        says(again, subject.images),
        subject.logits,
        EXACT,
        "what is made again from the stored bytes has the same logits",
        "what is made again from the stored bytes has other logits: what the update reads must be in "
        f"{subject.method}.shapes, banks or buffers",
    )


def merged(subject: Subject) -> Finding:
    """A plain model that holds the updates says the same."""
    if not subject.adaptation.sites:
        return Finding(Verdict.none, None, f"{subject.method} has no adapters")
    try:
        whole = merge.merge(subject.model)
    except ConfigError as error:
        return Finding(Verdict.none, None, f"not merged: {error}")
    return compare(
        says(whole, subject.images),
        subject.logits,
        FAITHFUL,
        "merged into the frozen weights, the adapters give the same logits",
        f"the merged model has other logits: {subject.method}.factors and update contradict each other",
    )


def trained(subject: Subject) -> Finding:
    """How many parameters are trained."""
    count = costs.parameters(subject.model)["trainable_params_without_head"]
    return Finding(Verdict.none, count, "parameters are trained, the classifier aside")


def stored(subject: Subject) -> Finding:
    """How many bytes are stored."""
    empty = len(save({}))  # such a file is not written
    count = sum(len(file) for file in files(subject, head=False) if len(file) > empty)
    return Finding(Verdict.none, count, "bytes are stored, the classifier aside")


def prune(subject: Subject) -> Finding:
    """Prune by random importance, share and keep as the experiment does, in place."""
    experiment = subject.experiment
    if not experiment.prunes:
        return Finding(Verdict.none, None, f"{subject.method} has no adapters: nothing is pruned")
    importance = _random_importance(subject)
    decision = decide(importance, experiment.score.unit, experiment.prune, experiment.share.rule)
    knowledge = experiment.knowledge
    pruned = apply(subject.model, subject.description, decision, importance, knowledge, {})
    subject.description, subject.kept = pruned.description, pruned.kept
    unit, count = experiment.score.unit.value, f"{len(decision.pruned)} of {len(importance.units)}"
    rule, kind = experiment.share.rule.value, experiment.knowledge.kind.value
    return Finding(Verdict.ok, count, f"units ({unit}) are pruned at random; share={rule} knowledge={kind}")


def _random_importance(subject: Subject) -> Importance:
    kind = subject.experiment.score.unit
    if kind in (Unit.channel, Unit.block):
        units = tuple(unit for layer in layers(subject.model, kind) for unit in layer.units)
    else:
        units = tuple(u.unit for u in units_at_work(subject.adaptation, kind))
    scores = torch.rand(len(units), generator=subject.noise).tolist()
    similarity: dict[str, dict[str, float]] = {}
    for unit in units if kind is Unit.adapter else ():
        row = torch.rand(len(units), generator=subject.noise).tolist()
        alike = zip(units, row, strict=True)
        similarity[unit.name] = {other.name: s for other, s in alike if other.group == unit.group}
    return Importance("random", units, tuple(scores), 0, None, similarity)


def files(subject: Subject, head: bool = True) -> tuple[bytes, bytes]:
    """What is stored of the tensors, with or without the classifier, and of the knowledge."""
    tensors = models.tensors(subject.model)
    own = {name: tensor for name, tensor in tensors.items() if head or not name.startswith("head.")}
    return save(own), save(dict(subject.kept))


def some(names: Sequence[str]) -> str:
    """The first names, and how many there are more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


AT_START: Mapping[str, Check] = {"identity": identity, "called": called, "frozen": frozen}
AT_WORK: Mapping[str, Check] = {
    "gradients": gradients,
    "batch": batch,
    "saved": saved,
    "merged": merged,
    "trained": trained,
    "stored": stored,
}
