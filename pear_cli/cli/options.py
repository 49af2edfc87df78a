"""Arguments and options that several commands share."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pear_cli.errors import CorruptArtifact, OldSchema, StoreError
from pear_cli.store.artifact import name_of
from pear_cli.system.streams import complain, printable_lines, until_closed

if TYPE_CHECKING:
    from pear_cli.store.store import Store

SETTING = "runtime.store="

SHOWN = 12
"""Digits of a key that are completed."""


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Groups, presets and keys for the override under the cursor."""
    from pear_cli.launch.completion import complete

    return complete(ctx.params.get("overrides") or (), incomplete)


def complete_key(ctx: typer.Context, args: list[str], incomplete: str) -> list[tuple[str, str]]:
    """Keys of the store that begin so, each with its stage; else files and folders."""
    named = [word.partition("=")[2] for word in sys.argv + args if word.startswith((SETTING, "--store="))]
    given = ctx.params.get("store") or STORE
    stage, _, prefix = incomplete.rpartition("/")
    try:
        folders = list(open_store(Path(named[-1] if named else given)).folders(stage or None))
    except (OSError, StoreError):
        folders = []
    within = f"{stage}/" if stage else ""
    found = [(within + f.name[:SHOWN], f.parent.name) for f in folders if f.name.startswith(prefix)]
    return found or _files(incomplete)


def _files(incomplete: str) -> list[tuple[str, str]]:
    """Files and folders that begin so; nothing for an empty word."""
    before, slash, name = incomplete.rpartition("/")
    with suppress(OSError), os.scandir(before + slash or ".") as entries:
        names = [f"{e.name}{'/' * e.is_dir()}" for e in entries if e.name.startswith(name)]
        return [(before + slash + found, "") for found in sorted(names)] if incomplete else []
    return []


def _words(metavar: str) -> Any:
    return typer.Argument(
        metavar=metavar,
        help="What differs from the defaults, which `pear run --cfg job` shows.",
        autocompletion=_complete,
        show_default=False,
    )


Overrides = Annotated[list[str] | None, _words("KEY=VALUE|GROUP=PRESET")]
Words = Annotated[list[str] | None, _words("KEY=VALUE|GROUP=PRESET|FLAG")]
ModelOrWords = Annotated[list[str] | None, _words("MODEL|KEY=VALUE|GROUP=PRESET|FLAG")]
Model = Annotated[
    str,
    typer.Argument(help="An artifact, or a file that `pear export` wrote.", autocompletion=complete_key),
]
Weights = Annotated[str | None, typer.Option(help="The frozen weights, if they are elsewhere.")]
Json = Annotated[bool, typer.Option("--json", help="Print each job's whole result as one line of JSON.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT", help="A folder, a key, or its first digits.", autocompletion=complete_key
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before artifacts go.")]
Lines = Annotated[bool, typer.Option("--json", help="Print lines of JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors on stderr.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show which stages are there, which are to compute, and stop."),
]


class Switch(StrEnum):
    """A value of an option that can be off."""

    true = "true"
    false = "false"


KeepGoing = Annotated[
    Switch, typer.Option("--keep-going", help="Of a sweep: the other jobs run when one fails.")
]


def folder_named(text: str | Path) -> Path:
    """A folder that an option names; an empty name would be the current one."""
    if not str(text):
        raise typer.BadParameter("it is empty: give the folder a name")
    return Path(text)


Root = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        parser=folder_named,
        help="Where the artifacts are; runtime.store=DIR says the same.",
    ),
]
STORE = Path("outputs/store")


class Listed(TyperGroup):
    """A group whose help has a whole sentence a command; typer would cut it off after 45 letters."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and what each does, wrapped to the width of the terminal."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(1000)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class OfAStore(TyperCommand):
    """A command on what is stored: it takes `runtime.store=DIR` as the others do, and `head` may end it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, _with_store(args)))

    def invoke(self, ctx: Any) -> Any:
        with until_closed():
            return super().invoke(ctx)


class GroupOfAStore(Listed):
    """Commands on what is stored: `runtime.store=DIR` may stand before theirs, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, _with_store(args)))

    def invoke(self, ctx: Any) -> Any:
        with until_closed():
            return super().invoke(ctx)


def _with_store(words: list[str]) -> list[str]:
    return [f"--store={_bare(word)}" if word.startswith(SETTING) else word for word in words]


def _bare(override: str) -> str:
    """The value of an override, without the quotes that Hydra takes off too."""
    value = override.partition("=")[2]
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def complain_of_unread(command: str, unread: Mapping[Path, StoreError]) -> None:
    """Say which artifacts were left out: all damaged ones in a line, all of an older pear in another."""
    there = {folder: error for folder, error in unread.items() if folder.exists()}  # `rm` may have come to it
    damaged = [name_of(folder) for folder, error in there.items() if isinstance(error, CorruptArtifact)]
    old = sum(isinstance(error, OldSchema) for error in there.values())
    if damaged:
        complain(command, f"damaged manifests (pear rm, or pear gc --verify): {', '.join(damaged)}")
    if old:
        complain(
            command, f"{old} artifacts of an older pear are not read (to remove them: pear gc --old-schema)"
        )
    for error in there.values():
        if not isinstance(error, CorruptArtifact | OldSchema):
            complain(command, f"skipped: {error}")


def confirm(command: str, lines: Iterable[str], what: str, yes: bool) -> None:
    """Ask on a terminal before something goes that could still be read; a script says --yes.

    Args:
        lines: what would go, one a line; shown before the question.
        what: it in a few words.
        yes: it was answered already.

    Raises:
        StoreError: nobody is there to answer.
        typer.Abort: the answer is no.
    """
    if yes:
        return
    print(*(printable_lines(line) for line in lines), sep="\n", file=sys.stderr)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise StoreError(f"{what} (see above); nothing was removed. To remove them: --yes")
    typer.confirm(f"pear {command}: {what}; remove them?", abort=True, err=True)


def open_store(root: Path) -> "Store":
    """The store of a command; only the default one may be yet to come."""
    from pear_cli.store.store import Store

    if root != STORE and not root.is_dir():
        raise StoreError(f"there is no folder {root}; check --store or runtime.store")
    return Store(root)
