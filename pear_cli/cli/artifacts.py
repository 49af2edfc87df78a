"""The commands that look after artifacts."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pear_cli.cli.options import (
    STORE,
    Lines,
    OfAStore,
    Root,
    Yes,
    complain_of_unread,
    complete_key,
    confirm,
    open_store,
)
from pear_cli.errors import OldSchema, StoreError
from pear_cli.launch.flags import UsageError
from pear_cli.system.streams import complain

Shown = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT",
        help="A folder, a key, its first digits, or an exported file.",
        autocompletion=complete_key,
    ),
]

LONGEST_AGE = 36500
"""Days that --older-than may name: a hundred years."""

app = typer.Typer()


@app.command(name="ls", cls=OfAStore)
def list_artifacts(
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Only those; also !=, <, <=, >, >=, in quotes.", show_default=False
        ),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--benchmark", help="Averages over the tasks of a benchmark instead: vtab1k."),
    ] = None,
    as_json: Lines = False,
    store: Root = STORE,
) -> None:
    """List what the store holds.

    \b
    pear ls
    pear ls stage=eval dataset=digits 'prune.ratio>=0.5'
    pear ls --benchmark vtab1k method=lora
    """
    from pear_cli.report.analysis import benchmark, listing
    from pear_cli.report.terminal import layout, standings, table

    asked = benchmark.named(named) if named is not None else None

    unread: dict[Path, StoreError] = {}
    conditions = filters or ()
    found = listing.rows(open_store(store), conditions, on_error=unread.__setitem__)
    complain_of_unread("ls", unread)
    if conditions and not found:
        complain("ls", f"no artifacts match {' '.join(conditions)}")
    elif not found and asked is None:
        complain("ls", f"no artifacts in {store} yet; pear run makes some")
    elif asked is not None and as_json:
        for standing in benchmark.standings(found, asked):
            typer.echo(json.dumps(standing.to_json()))
    elif asked is not None:
        standings.print_benchmark(found, asked, layout.console())
    elif as_json:
        typer.echo("".join(f"{line}\n" for line in listing.json_lines(found)), nl=False)
    else:
        table.print_listing(found, layout.console())


@app.command(name="show", cls=OfAStore)
def show_artifact(
    artifact: Shown,
    everything: Annotated[
        bool, typer.Option("--all", help="Also every setting, metric, cost and file.")
    ] = False,
    as_json: Lines = False,
    store: Root = STORE,
) -> None:
    """Show one artifact or exported file: its data and result, the command that repeats it, its share map.

    \b
    pear show 3f2a
    pear show digits.safetensors
    """
    from pear_cli.export import single_file, source
    from pear_cli.report.analysis import listing
    from pear_cli.report.terminal import exported, layout, show

    found = source.named(artifact, open_store(store))
    if isinstance(found, Path) and as_json:
        typer.echo(json.dumps(single_file.read(found).to_json()))
    elif isinstance(found, Path):
        exported.print_exported(found, layout.console(), everything=everything)
    elif as_json:
        typer.echo(listing.json_lines([listing.row(*found)])[0])
    else:
        show.print_artifact(*found, layout.console(), everything=everything)


@app.command(cls=OfAStore)
def rm(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT", autocompletion=complete_key)],
    recursive: Annotated[bool, typer.Option("--recursive", help="Also what was made from it.")] = False,
    yes: Yes = False,
    store: Root = STORE,
) -> None:
    """Remove artifacts, sound or damaged; prints the folders that went.

    \b
    pear rm 3f2a
    pear rm 3f2a --recursive
    """
    from pear_cli.store.removal import remove

    place = open_store(store)
    folders = [place.locate(name) for name in artifacts]
    if recursive:
        doomed = (remove(place, folder, recursive=True, dry_run=True) for folder in folders)
        if more := list(dict.fromkeys(path for paths in doomed for path in paths if path not in folders)):
            confirm("rm", map(str, more), f"{len(more)} artifacts were made from it", yes)
    unread: dict[Path, StoreError] = {}
    for folder in folders:
        if folder.exists():  # one before may have taken it along
            for gone in remove(place, folder, recursive=recursive, on_error=unread.__setitem__):
                typer.echo(gone)
    complain_of_unread("rm", unread)


@app.command(name="gc", cls=OfAStore)
def collect(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, only say what would go.")
    ] = False,
    orphans: Annotated[bool, typer.Option("--orphans", help="Also artifacts whose inputs are gone.")] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Also unused artifacts older than this.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every hash; set damaged ones aside, exit with 1.")
    ] = False,
    old_schema: Annotated[
        bool, typer.Option("--old-schema", help="Also artifacts of an older pear, which are not read.")
    ] = False,
    yes: Yes = False,
    store: Root = STORE,
) -> None:
    """Remove what killed processes left behind; complete artifacts only on request.

    \b
    pear gc --dry-run
    pear gc --verify
    pear gc --orphans --older-than 30
    """
    from pear_cli.store import draft, gc

    if older_than is not None and not 0 <= older_than <= LONGEST_AGE:
        raise UsageError(f"--older-than {older_than} is out of range: 0 to {LONGEST_AGE} days")
    seconds = None if older_than is None else older_than * 86400
    place = open_store(store)
    what = partial(gc.collect, place, orphans=orphans, older_than=seconds, old_schema=old_schema)
    if not dry_run and (orphans or old_schema or older_than is not None):
        complete = [item for item in what(dry_run=True).items if item.is_complete]
        if complete:
            lines = (f"{item.kind}  {item.size}  {item.path}" for item in complete)
            confirm("gc", lines, f"{len(complete)} complete artifacts would go", yes)
    unread: dict[Path, StoreError] = {}
    report = what(dry_run=dry_run, verify=verify, on_error=unread.__setitem__)
    shown = [item for item in report.items if item.kind != "lock"]
    for item in shown:
        typer.echo(f"{item.kind}\t{item.size}\t{item.path}")
    complain_of_unread("gc", unread)
    damaged = sum(item.kind == "corrupt" for item in shown)
    locks = len(report.items) - len(shown)
    verb, done = ("would free", "would be set aside") if dry_run else ("freed", "set aside")
    also = f" and {locks} unused lock files" if locks else ""
    typer.echo(f"{verb} {report.size} bytes in {len(shown) - damaged} items{also}", err=True)
    unchecked = verify and any(not isinstance(error, OldSchema) for error in unread.values())
    if damaged:
        complain(
            "gc", f"damaged artifacts: {damaged}, {done} in {place.root / draft.QUARANTINE} till the next gc"
        )
    if damaged or unchecked:
        raise typer.Exit(1)
