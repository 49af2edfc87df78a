"""Arguments and options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer


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
Name = Annotated[str, typer.Argument(metavar="ARTIFACT", help="A folder, a key, or its first digits.")]
Root = Annotated[Path, typer.Option("--store", help="Where the artifacts are; runtime.store of the config.")]
STORE = Path("outputs/store")


def complain(command: str, message: object) -> None:
    print(f"{f'pear {command}'.rstrip()}: {message}", file=sys.stderr)
