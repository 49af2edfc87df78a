"""The command line: Typer commands, nothing else."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from pear_cli.cli import artifacts, data, experiments, models, reports, sweeps
from pear_cli.cli.options import Listed
from pear_cli.errors import describe, near
from pear_cli.launch.flags import UsageError
from pear_cli.system import processes, signals
from pear_cli.system.streams import complain

INTERRUPTED = "interrupted; nothing is half-written, and the same command does what is missing"


class Commands(Listed):
    """All of pear: a command that is interrupted and has not said so ends with one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain(ctx.invoked_subcommand, INTERRUPTED)
            raise


app = typer.Typer(
    name="pear",
    cls=Commands,
    rich_markup_mode=None,
    suggest_commands=False,
    pretty_exceptions_enable=False,
    help="""Visual parameter-efficient fine-tuning with adapter pruning and sharing.

    \b
    pear train                    1  adapters at every site of a frozen backbone
    pear score                    2  the importance of every adapter
    pear prune-share              3  which adapters go, and who serves in their place
    pear checkpoint               4  what the pruned ones had learned
    pear train phase=shared       5  adaptation continues
    pear eval                     6  the test set, once
    pear run                      1-6, each stage reused where it is there already

    The same overrides name the same experiment to every command:

    \b
    pear run method=adaptformer dataset=mnist5k prune.ratio=0.75
    pear run -m prune.ratio=0.25,0.5,0.75 seed=0,1,2     a sweep; --dry-run shows what it would compute
    pear sweeps                   the sweeps of this store, and how to resume one
    pear run --cfg job            what an experiment consists of
    pear audit method=lora        whether it can work, in seconds, before a long run
    pear ls stage=eval            what is there already
    pear data ls                  the datasets: which are there, and where from
    pear report dataset=mnist5k   a page that compares it

    Results go to stdout, one line a job; all else to stderr. Exit codes: 0 done, 1 a job failed or the
    config is wrong, 2 usage, 130 interrupted (by TERM 143, by HUP 129). PEAR_TRACEBACK=1 shows the
    traceback of an error.
    """,
)
app.add_typer(experiments.app)
app.add_typer(models.app)
app.add_typer(artifacts.app)
app.add_typer(data.app, name="data")
app.add_typer(sweeps.app, name="sweeps")
app.add_typer(reports.app)


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
            complain("", message)
            return 2
        return int(group.main(list(words) or ["--help"], prog_name="pear", standalone_mode=False) or 0)
    except UsageError as error:
        complain(command, error)
        return 2
    except typer.TyperException as error:
        complain(command, error.format_message())
        return error.exit_code
    except KeyboardInterrupt:
        complain(command, INTERRUPTED)
        return signals.INTERRUPTED
    except Exception as error:
        if os.environ.get("PEAR_TRACEBACK") == "1":
            traceback.print_exc()
        complain(command, describe(error))
        return 1


def main() -> None:
    """Run pear as a program."""
    if processes.launched():
        signals.end_with(os.getppid())  # the launcher; they are in different sessions
    if not processes.is_main():
        from pear_cli.stages.follower import serve

        processes.leave(serve())
    signals.install(told_by_parent=processes.launched_by_pear())
    signals.raising(signals.Interrupted)
    code = signals.exit_code(perform(sys.argv[1:]))
    if code == 0 and processes.launched():  # otherwise their launcher ends the others
        from pear_cli.system.team import this_team

        this_team().dismiss()
    signals.ignore()  # all is done; to end Python takes torch a moment
    if processes.launched() or "ray" in sys.modules:  # their threads may abort a Python that is taken down
        processes.leave(code)
    sys.exit(code)
