"""Completion of overrides: Hydra knows the groups, presets and keys."""

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import hydra
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra

from pear_cli.config.presets import config_dir
from pear_cli.launch.guard import guarded
from pear_cli.launch.jobs import ROOT


def complete(words: Sequence[str], word: str) -> list[str]:
    """The groups, presets and keys that an unfinished override may become.

    Bash takes `method=lo` for three words and completes the last one only; other shells leave it whole.

    Args:
        words: the overrides and flags before it.
        word: what is typed of it.
    """
    known = ""
    if "COMP_WORDS" in os.environ:
        typed = os.environ["COMP_WORDS"].split("\n")[2 : int(os.environ["COMP_CWORD"]) + 1]
        *words, word = _glue(typed) or [""]
        known = word[: word.rfind("=") + 1]
    found = _query(words, word)
    if len(found) == 1 and found[0].endswith(("=", ".", "/")) and found[0] != word:
        found += _query(words, found[0])  # a single answer would get a space after it
    return [text.removeprefix(known) for text in found]


def _glue(tokens: Iterable[str]) -> list[str]:
    words: list[str] = []
    for token in tokens:
        if words and (token.startswith("=") or words[-1].endswith("=")):
            words[-1] += token
        else:
            words.append(token)
    return words


def _query(words: Sequence[str], word: str) -> list[str]:
    overrides = [done for done in words if "=" in done and not done.startswith("-")]
    line = " ".join([*searched(_config_dir(words)), *overrides, word])
    with guarded(overrides), hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        loader = GlobalHydra.instance().config_loader()
        return [str(found) for found in BashCompletion(loader)._query(ROOT, line)]


def searched(further: Path | None) -> list[str]:
    """A folder of further presets as an override, for where Hydra takes no `--config-dir`."""
    return [] if further is None else [f"hydra.searchpath=['file://{further.expanduser().absolute()}']"]


def _config_dir(words: Iterable[str]) -> Path | None:
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("-") else [word])]
    return next((Path(b) for a, b in pairwise(parts) if a in ("--config-dir", "-cd")), None)
