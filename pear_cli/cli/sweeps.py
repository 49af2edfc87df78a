"""The commands that look after sweeps."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from pear_cli.cli.experiments import start
from pear_cli.cli.options import (
    STORE,
    GroupOfAStore,
    Json,
    Lines,
    OfAStore,
    Quiet,
    Root,
    Switch,
    folder_named,
)
from pear_cli.errors import StoreError
from pear_cli.launch.flags import UsageError, quoted
from pear_cli.system.streams import complain

SWEEP_DIR = "hydra.sweep.dir="
HYDRA = re.compile(r"\+{0,2}hydra\.[\w.-]+=")

app = typer.Typer(cls=GroupOfAStore, invoke_without_command=True)


@app.callback()
def list_sweeps(context: typer.Context, as_json: Lines = False, store: Root = STORE) -> None:
    """List the sweeps of a store, or resume one.

    \b
    pear sweeps                   jobs done, failed, at work and missing, of every sweep
    pear sweeps resume 3f2a       the same command again: what is missing is computed
    """
    if context.invoked_subcommand is not None:
        context.obj = store
        return
    from pear_cli.report.terminal import layout
    from pear_cli.report.terminal.sweeps import json_lines, print_sweeps
    from pear_cli.store import sweeps

    known = [(sweep, sweeps.progress_of(sweep)) for sweep in sweeps.noted(store)]
    known = [(sweep, progress) for sweep, progress in known if progress.began]
    if as_json:
        typer.echo("".join(f"{line}\n" for line in json_lines(known)), nl=False)
    elif not known:
        complain("sweeps", f"no sweeps of {store} yet; pear run -m makes one")
    else:
        print_sweeps(known, layout.console())


@app.command(cls=OfAStore)
def resume(
    context: typer.Context,
    sweep: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the first digits.")],
    again: Annotated[
        list[str] | None,
        typer.Argument(metavar="hydra.KEY=VALUE", help="What only you may say: see docs/howto/trust.md."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=folder_named, help="Where the artifacts are.")
    ] = None,
) -> None:
    """Run the command of a sweep again, from the folder where it was started.

    Stages that are there are reused: only jobs that failed or are missing have anything to compute.

    \b
    pear sweeps resume 3f2a
    pear sweeps resume 3f2a 'hydra.launcher.setup=["module load cuda"]'     which the sweep had, too
    """
    from pear_cli.store import sweeps
    from pear_cli.system import progress

    found = sweeps.locate(store or context.obj or STORE, sweep)
    foreign = [word for word in again or () if not HYDRA.match(word)]
    if foreign:
        raise UsageError(f"{foreign[0]} would make another sweep; only settings of hydra can be added")
    if not sweeps.progress_of(found).began:
        raise StoreError(f"sweep {found.id} has left nothing in {found.folder}; start it anew: {found.line}")
    try:
        os.chdir(found.cwd)
    except OSError as error:
        raise StoreError(
            f"the folder where sweep {found.id} was started, {found.cwd}, is not there: {error.strerror}"
        ) from error
    if not quiet:
        progress.say(f"{found.line}    in {found.cwd}", whole=True)
    words = [word for word in found.words if not word.startswith(SWEEP_DIR)]
    typed = (*(again or ()), f"{SWEEP_DIR}{quoted(found.folder)}")
    keep_going = Switch(str(found.keep_going).lower())
    start(found.command, [*words, *typed], as_json, quiet, keep_going=keep_going, typed=typed)
