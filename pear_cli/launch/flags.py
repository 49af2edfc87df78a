"""Hydra's flags: the one table of them, and how they are told from overrides wherever they stand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pear_cli.errors import PearError, near


class UsageError(PearError):
    """The words of a command line make no command."""


@dataclass(frozen=True)
class Flag:
    """A flag of Hydra's.

    Args:
        help: what it does.
        short: its other name, if any.
        takes: how many words follow it: 0, 1, or "?" for one of `choices` or none.
        choices: what may follow, the default first; empty for anything.
        mode: it decides what Hydra does; only one such flag may stand.
        shows: it shows something instead of running jobs.
    """

    help: str
    short: str = ""
    takes: int | str = 0
    choices: tuple[str, ...] = ()
    mode: bool = False
    shows: bool = False


INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS: Mapping[str, Flag] = {
    "--multirun": Flag("one job for each value of KEY=A,B,C", "-m", mode=True),
    "--run": Flag("one job; the default", "-r", mode=True),
    "--cfg": Flag(
        "show the config instead of running", "-c", 1, ("job", "hydra", "all"), mode=True, shows=True
    ),
    "--resolve": Flag("with --cfg: resolve interpolations"),
    "--package": Flag("with --cfg: show one group, such as optim", "-p", 1),
    "--info": Flag("show how the config is made up", "-i", "?", INFO, mode=True, shows=True),
    "--config-dir": Flag("a folder with further presets, searched first", "-cd", 1),
    "--config-name": Flag("another root config of that folder", "-cn", 1),
    "--hydra-help": Flag("what Hydra itself offers", mode=True, shows=True),
}


def reorder(words: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Part the words of a command line into Hydra's flags, with their values, and overrides.

    Hydra takes overrides only after all flags; here a flag may stand anywhere.

    Raises:
        UsageError: an unknown flag, a missing or impossible value, flags that exclude each other.
    """
    names = {flag.short: name for name, flag in FLAGS.items()}
    flags: dict[str, str | None] = {}
    overrides = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        given, equals, attached = word.partition("=")
        name = names.get(given, given)
        if name == "--experimental-rerun":
            raise UsageError(f"{name} is refused: it loads a pickle; repeat the overrides instead")
        if name not in FLAGS:
            known = [*FLAGS, "--json", "--quiet", "--help"]
            raise UsageError(f"no flag {given}{near(given, known) or ';'} flags: {', '.join(known)}")
        flags[name] = _value(name, attached if equals else None, rest)
    modes = [name for name in flags if FLAGS[name].mode]
    if len(modes) > 1:
        raise UsageError(f"{' and '.join(modes)} exclude each other")
    if "--resolve" in flags and "--cfg" not in flags:
        raise UsageError("--resolve needs --cfg: it resolves what --cfg shows")
    return flags, overrides


def spelled(flags: Mapping[str, str | None]) -> list[str]:
    """Flags, as `reorder` parted them off, as words again."""
    return [name if value is None else f"{name}={value}" for name, value in flags.items()]


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it, whatever is in it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + (m[2] and r"\'"), text) + "'"


def _value(name: str, attached: str | None, rest: list[str]) -> str | None:
    flag = FLAGS[name]
    if flag.takes == 0:
        if attached is not None:
            raise UsageError(f"{name} takes no value; it has {attached!r}")
        return None
    value = attached
    if value is None and rest and (flag.takes == 1 or not (rest[0].startswith("-") or "=" in rest[0])):
        value = rest.pop(0)
    if value is None and flag.takes == "?":
        return flag.choices[0]
    if value is None:
        raise UsageError(f"{name} needs a value;{_one_of(flag)}")
    if flag.choices and value not in flag.choices:
        raise UsageError(f'{name} cannot be "{value}"{near(value, flag.choices) or ";"}{_one_of(flag)}')
    return value


def _one_of(flag: Flag) -> str:
    return f" one of {', '.join(flag.choices)}" if flag.choices else " it stands last"
