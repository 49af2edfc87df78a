"""The commands that carry out stages of an experiment: each hands its words to Hydra."""

import os
import re
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import typer

from pear_cli.cli.options import DryRun, Json, KeepGoing, ModelOrWords, Quiet, Switch, Weights, Words
from pear_cli.launch.flags import FLAGS, UsageError, quoted, reorder, spelled

MODEL = re.compile(r".*\.safetensors|[0-9a-f]{4,32}")
"""What is a model though no such file is there: a file that is missing, or digits of a key."""

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
def train(
    overrides: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    keep_going: KeepGoing = Switch.true,
) -> None:
    """Train adapters on a frozen backbone: dense, or with phase=shared after sharing.

    \b
    pear train dataset=digits method=adaptformer method.rank=4
    pear train phase=shared dataset=digits prune.ratio=0.5
    pear train -m seed=0,1,2
    """
    start("train", overrides, as_json, quiet, dry_run, keep_going)


@app.command(**JOB)
def score(
    overrides: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    keep_going: KeepGoing = Switch.true,
) -> None:
    """Score the importance of every adapter of a trained model.

    \b
    pear score dataset=digits
    pear score dataset=digits score=ablation score.batches=8
    """
    start("score", overrides, as_json, quiet, dry_run, keep_going)


@app.command(**JOB)
def prune_share(
    overrides: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    keep_going: KeepGoing = Switch.true,
) -> None:
    """Choose which adapters are pruned, and which kept ones serve in their place.

    \b
    pear prune-share dataset=digits prune.ratio=0.75 share=nearest
    """
    start("prune-share", overrides, as_json, quiet, dry_run, keep_going)


@app.command(**JOB)
def checkpoint(
    overrides: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    keep_going: KeepGoing = Switch.true,
) -> None:
    """Make the knowledge checkpoint: all that adaptation continues from.

    \b
    pear checkpoint dataset=digits prune.ratio=0.75 knowledge=int8
    """
    start("checkpoint", overrides, as_json, quiet, dry_run, keep_going)


@app.command(name="eval", **JOB)
def evaluate(
    overrides: ModelOrWords = None,
    weights: Weights = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    keep_going: KeepGoing = Switch.true,
) -> None:
    """Evaluate on the test set: after sharing, or with phase=dense before it.

    A word without `=` is a stored or exported model to evaluate instead of the experiment's own, on the
    dataset that the overrides name. Its result is not stored: stdout has its path, with --json its metrics.

    \b
    pear eval dataset=digits prune.ratio=0.75
    pear eval phase=dense dataset=digits --json
    pear eval digits.safetensors dataset=digits --json
    """
    words, model = _without_model(overrides or [])
    if model is None and weights is not None:
        raise UsageError("--weights goes with a model to evaluate; an experiment has backbone.weights")
    if model is None:
        start("eval", words, as_json, quiet, dry_run, keep_going)
    if dry_run:
        raise UsageError("--dry-run goes with an experiment; the evaluation of a model has one stage")
    place = os.path.abspath(model) if os.path.exists(model) else model
    file = os.path.abspath(weights) if weights else None
    with TemporaryDirectory() as folder:  # nothing of a single evaluation is kept
        words.insert(0, f"hydra.run.dir={quoted(folder)}")
        start("eval", words, as_json, quiet, keep_going=keep_going, model=place, weights=file)


@app.command(**JOB)
def run(
    overrides: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    keep_going: KeepGoing = Switch.true,
) -> None:
    """Perform every stage in one job; what is there already is reused.

    \b
    pear run experiment=pear prune.ratio=0.75
    pear run dataset=digits prune.ratio=0.5 share=similar
    pear run -m prune.ratio=0.25,0.5,0.75      stages 1 and 2 run once
    pear run -m method=lora,neat seed=0,1,2 --dry-run     what that would compute
    """
    start("run", overrides, as_json, quiet, dry_run, keep_going)


@app.command(**JOB)
def audit(
    overrides: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the model of an experiment before a long run: in seconds, on noise, without data.

    It takes what `pear run` takes. stdout has a table, a line a check: does training start from the frozen
    backbone, is every adapter called and trained, before pruning and after, does an image depend on the
    batch, does the model survive storing, and merging. Exit code 1 where one has failed.

    \b
    pear audit method=adaptformer prune.ratio=0.75
    pear audit method=lily method.router_stats=running --json
    pear audit -m method=lora,adaptformer,neat
    """
    start("audit", overrides, as_json, quiet)


def start(
    command: str,
    words: list[str] | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool = False,
    keep_going: Switch = Switch.true,
    typed: tuple[str, ...] | None = None,
    **model: str | None,
) -> NoReturn:
    """Carry out a command and exit.

    Args:
        command: its name.
        words: overrides and flags.
        as_json: print whole results.
        quiet: nothing but errors on stderr.
        dry_run: say what would be done, and do nothing.
        keep_going: the other jobs of a sweep run when one fails.
        typed: those of the words that the user has typed, where some come from elsewhere.
        model: for `eval`, a model to evaluate and its weights, instead of an experiment's own.
    """
    from pear_cli.launch import jobs, launch

    name = "evaluate_model" if model else {"eval": "evaluate"}.get(command, command.replace("-", "_"))
    asked = launch.Asked(as_json, quiet, dry_run, keep_going is Switch.true, typed)
    task = partial(getattr(jobs, name), **model)
    raise typer.Exit(launch.launch(command, task, words or [], asked))


def _without_model(words: list[str]) -> tuple[list[str], str | None]:
    """Part the one word that is a model from flags and overrides."""
    flags, overrides = reorder(words)
    plain = [word for word in overrides if "=" not in word]
    models = [word for word in plain if MODEL.fullmatch(word) or os.path.exists(word)]
    if len(models) > 1:
        raise UsageError(f"{' and '.join(models)}: one model at a time")
    rest = [word for word in overrides if word not in models]
    return [*spelled(flags), *rest], models[0] if models else None
