"""Arguments and options that several commands share."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pear_cli.errors import StoreError
from pear_cli.streams import printable_lines, until_closed

if TYPE_CHECKING:
    from pear_cli.store import Store

SETTING = "runtime.store="


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Groups, presets and keys for the override under the cursor."""
    from pear_cli.hydra_app import complete

    return complete(ctx.params.get("overrides") or (), incomplete)


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
Model = Annotated[str, typer.Argument(help="An artifact, or a file that `pear export` wrote.")]
Weights = Annotated[str | None, typer.Option(help="The frozen weights, if they are elsewhere.")]
Json = Annotated[bool, typer.Option("--json", help="Print each job's whole result as one line of JSON.")]
Name = Annotated[str, typer.Argument(metavar="ARTIFACT", help="A folder, a key, or its first digits.")]
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
    Switch, typer.Option("--keep-going", help="Of a sweep: the other jobs go on when one fails.")
]
Root = Annotated[
    Path, typer.Option("--store", help="Where the artifacts are; runtime.store=DIR says the same.")
]
STORE = Path("outputs/store")


class OfAStore(TyperCommand):
    """A command on what is stored: it takes `runtime.store=DIR` as the others do, and `head` may end it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, _with_store(args)))

    def invoke(self, ctx: Any) -> Any:
        with until_closed():
            return super().invoke(ctx)


class GroupOfAStore(TyperGroup):
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


def complain(command: str, message: object) -> None:
    print(f"{f'pear {command}'.rstrip()}: {printable_lines(str(message))}", file=sys.stderr)


def open_store(root: Path) -> "Store":
    """The store of a command; only the default one may be yet to come."""
    from pear_cli.store import Store

    if root != STORE and not root.is_dir():
        raise StoreError(f"there is no folder {root}; check --store or runtime.store")
    return Store(root)
