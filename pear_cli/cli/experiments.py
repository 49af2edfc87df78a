"""The commands that carry out stages of an experiment: each hands its words to Hydra."""

from typing import Any

import typer

from pear_cli.cli.options import Json, Overrides
from pear_cli.flags import FLAGS

app = typer.Typer()


def _flags_help() -> str:
    lines = []
    for name, flag in FLAGS.items():
        value = "|".join(flag.choices) or "VALUE" if flag.takes else ""
        names = f"{flag.short}, {name}" if flag.short else name
        lines.append(f"{names} {f'[{value}]' if flag.takes == '?' else value}".rstrip())
        lines.append(f"      {flag.help}")
    return "\b\nFlags, anywhere among the overrides:\n" + "\n".join(f"  {line}" for line in lines)


JOB: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": True},
    "epilog": _flags_help(),
}


@app.command(**JOB)
def train(overrides: Overrides = None, as_json: Json = False) -> None:
    """Train adapters on a frozen backbone: dense, or with phase=shared after sharing.

    \b
    pear train dataset=digits method=adaptformer method.rank=4
    pear train phase=shared dataset=digits prune.ratio=0.5
    pear train -m seed=0,1,2
    """
    _launch("train", "train", overrides, as_json)


@app.command(**JOB)
def score(overrides: Overrides = None, as_json: Json = False) -> None:
    """Score the importance of every adapter of a trained model.

    \b
    pear score dataset=digits
    pear score dataset=digits score=ablation score.batches=8
    """
    _launch("score", "score", overrides, as_json)


@app.command(**JOB)
def prune_share(overrides: Overrides = None, as_json: Json = False) -> None:
    """Choose which adapters are pruned, and which kept ones serve in their place.

    \b
    pear prune-share dataset=digits prune.ratio=0.75 share=nearest
    """
    _launch("prune-share", "prune_share", overrides, as_json)


@app.command(**JOB)
def checkpoint(overrides: Overrides = None, as_json: Json = False) -> None:
    """Make the knowledge checkpoint: all that adaptation goes on from.

    \b
    pear checkpoint dataset=digits prune.ratio=0.75 knowledge=int8
    """
    _launch("checkpoint", "checkpoint", overrides, as_json)


@app.command(name="eval", **JOB)
def evaluate(overrides: Overrides = None, as_json: Json = False) -> None:
    """Evaluate on the test set: after sharing, or with phase=dense before it.

    \b
    pear eval dataset=digits prune.ratio=0.75
    pear eval phase=dense dataset=digits --json
    """
    _launch("eval", "evaluate", overrides, as_json)


@app.command(**JOB)
def run(overrides: Overrides = None, as_json: Json = False) -> None:
    """Perform every stage in one job; what is there already is reused.

    \b
    pear run experiment=demo
    pear run dataset=digits prune.ratio=0.5 share=similar
    pear run -m prune.ratio=0.25,0.5,0.75      stages 1 and 2 run once
    """
    _launch("run", "run", overrides, as_json)


def _launch(command: str, task: str, words: list[str] | None, as_json: bool) -> None:
    from pear_cli import hydra_app, jobs

    raise typer.Exit(hydra_app.launch(command, getattr(jobs, task), words or [], as_json))
