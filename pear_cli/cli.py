"""The command line: Typer commands, nothing else."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from pear_cli.errors import PearError, near
from pear_cli.flags import FLAGS

app = typer.Typer(
    name="pear",
    rich_markup_mode=None,
    suggest_commands=False,
    pretty_exceptions_enable=False,
    help="""Visual parameter-efficient fine-tuning with adapter pruning and sharing.

    \b
    pear train                    1  adapters at every site of a frozen backbone
    pear score                    2  the importance of every adapter
    pear prune-share              3  which adapters go, and who serves in their place
    pear checkpoint               4  what the pruned ones had learned
    pear train phase=shared       5  adaptation goes on
    pear eval                     6  the test set, once
    pear run                      1-6, each stage reused where it is there already

    The same overrides name the same experiment to every command:

    \b
    pear run method=adaptformer dataset=mnist5k prune.ratio=0.75
    pear run -m prune.ratio=0.25,0.5,0.75 seed=0,1,2
    pear run --cfg job            what an experiment consists of

    Results go to stdout, one line a job; all else to stderr. Exit codes: 0 done, 1 a job failed or the
    config is wrong, 2 usage, 130 interrupted. PEAR_TRACEBACK=1 shows the traceback of an error.
    """,
)


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


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Groups, presets and keys for the override under the cursor."""
    from pear_cli.hydra_app import complete

    return complete(ctx.params.get("overrides") or (), incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE|GROUP=PRESET|FLAG",
        help="What differs from the defaults, which `--cfg job` shows.",
        autocompletion=_complete,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print each job's whole result as one line of JSON.")]


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


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pear {version('pear-cli')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def perform(words: Sequence[str]) -> int:
    """Carry out a command line and return its exit code; errors are one or two lines on stderr."""
    group: Any = typer.main.get_command(app)
    command = next((word for word in words if not word.startswith("-")), "")
    try:
        if command and command not in group.commands:
            names = list(group.commands)
            message = f'no command "{command}"{near(command, names) or ";"} commands: {", ".join(names)}'
            print(f"pear: {message}", file=sys.stderr)
            return 2
        return int(group.main(list(words) or ["--help"], prog_name="pear", standalone_mode=False) or 0)
    except PearError as error:
        print(f"pear {command}: {error}", file=sys.stderr)
        return 1
    except typer.TyperException as error:
        print(f"pear {command}".rstrip() + f": {error.format_message()}", file=sys.stderr)
        return error.exit_code


def main() -> None:
    """Run pear as a program."""
    sys.exit(perform(sys.argv[1:]))
