"""The reference of the command line, made of what Typer knows of it."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from pear_cli.cli.app import app
from pear_cli.launch import flags

VERBATIM = "\b\n"  # begins a paragraph of a help text that stays as it is

INTRODUCTION = """# Commands

Made from the commands' own help: `pear COMMAND --help` says the same.

"""


def page() -> str:
    """The page, in Markdown."""
    group: Any = typer.main.get_command(app)
    parts = [INTRODUCTION, text(group.help), "\n", *hydra(), *commands(group, "pear")]
    return "".join(parts)


def commands(group: Any, prefix: str) -> Iterator[str]:
    """A section a command, groups followed by their commands."""
    for name, command in group.commands.items():
        called = prefix if name == "make" else f"{prefix} {name}"  # `pear report` is `make` of its group
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            yield section(command, called)
        if inner:
            yield from commands(command, called)


def section(command: Any, called: str) -> str:
    """One command: what it does, and a table of what it takes."""
    context = typer.Context(command, info_name=called)
    usage = " ".join([called, *command.collect_usage_pieces(context)])
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [f"| `{code(name)}` | {cell(about)} |\n" for name, about in filter(None, records)]
    further = f"[Hydra's flags](#{FLAGS}) may stand among its words.\n\n" if command.epilog else ""
    return (
        f"## {called}\n\n```text\n{usage}\n```\n\n{text(command.help)}\n{further}"
        f"| | |\n|---|---|\n{''.join(rows)}\n"
    )


FLAGS = "hydras-flags"


def hydra() -> Iterator[str]:
    """What Hydra takes with each command that carries out stages."""
    yield f"## Hydra's flags {{#{FLAGS}}}\n\nThey may stand anywhere among the overrides.\n\n"
    yield "| | |\n|---|---|\n"
    for name, flag in flags.FLAGS.items():
        value = "|".join(flag.choices) or "VALUE" if flag.takes else ""
        names = f"{flag.short}, {name}" if flag.short else name
        usage = f"{names} {f'[{value}]' if flag.takes == '?' else value}".rstrip()
        yield f"| `{code(usage)}` | {cell(flag.help)} |\n"
    yield "\n"


def text(help_text: str) -> str:
    """A help text as Markdown: paragraphs, and code where it is verbatim."""
    parts = []
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith(VERBATIM):
            parts.append(f"```text\n{paragraph.removeprefix(VERBATIM)}\n```\n")
        else:
            parts.append(f"{paragraph}\n")
    return "\n".join(parts)


def cell(content: str) -> str:
    """A text that stands in a table."""
    return content.replace("|", "\\|").replace("\n", " ")


def code(content: str) -> str:
    """A text that stands in a table as code, where a bar is a bar."""
    return content.replace("\n", " ")
