"""What differs from the defaults names the same experiment again."""

import shlex
from types import SimpleNamespace

import pytest

from pear_cli.experiment.lineage import Lineage
from pear_cli.experiment.read import read
from pear_cli.launch.launch import composed
from pear_cli.report.analysis.repeat import command, overrides


def keys(words):
    return {name: step.key for name, step in read(composed(words, None)).plan.items()}


def lineage(words, fake):
    """The lineage of an experiment's evaluation, of manifests that say what its stages' would say."""
    plan = read(composed(words, None)).plan
    made = []
    for step in plan.values():
        config = dict(step.config)
        made.append(fake.publish(step.stage, config))
    artifacts = [
        SimpleNamespace(
            stage=step.stage,
            path=artifact.path,
            manifest=artifact.manifest | {"environment": {"weights": step.backbone, "data": dict(step.data)}},
        )
        for step, artifact in zip(plan.values(), made, strict=True)
    ]
    return Lineage(artifacts[-1], tuple(artifacts[:-1]), ())


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("seed=3", "prune.ratio=0.75"),
        ("dataset=mnist5k", "method=adaptformer", "method.rank=4", "optim.epochs=3"),
        ("method=houlsby", "optim.lr=1e-4", "select=val"),
        ("method=heat", "optim.epochs=4"),
        ("method=splora", "score=channel", "prune.steps=2"),
        ("method=splopa", "score=block"),
        ("score=fisher", "score.batches=3", "share=nearest", "knowledge=int8", "knowledge.beta=0.5"),
        ("score=random", "share=none", "knowledge=none"),
        ("optim.schedule=continued", "optim.prune_at=0.25", "optim.epochs=8", "knowledge=lowrank"),
        ("experiment=lora_vtab", "dataset=digits", "backbone.pretrained=false"),
        ("backbone=pear_mini", "backbone.drop_path=0.1", "method=lily"),
        ("method.slots=[attn.k,mlp.fc1]", "prune.scope=slot", "prune.by=parameters"),
        ("method=full", "prune.ratio=0"),
    ],
    ids=" ".join,
)
def test_what_differs_from_the_defaults_names_the_same_experiment(words, fake):
    found = overrides(lineage(words, fake))
    assert keys(found) == keys(words), found


def test_an_experiment_of_defaults_differs_in_nothing(fake):
    assert overrides(lineage((), fake)) == []


def test_the_command_is_that_of_the_step_and_quotes_what_a_shell_would_read(fake):
    made = lineage(("method.slots=[attn.k]", "seed=1"), fake)
    assert shlex.split(command(made, "eval"))[:2] == ["pear", "run"]
    assert "'method.slots=[attn.k]'" in command(made, "train")
    assert command(made, "adapt").startswith("pear train phase=shared ")
