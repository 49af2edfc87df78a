"""The errors that a user can cause: what is wrong, the offending value, the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 4096
"""Letters of a text from elsewhere that are shown: no path is longer."""


def printable(text: str) -> str:
    """A text from elsewhere in one line: what is not printable is escaped, and what is too long shortened.

    A name is so never a command to a terminal, a line of its own, or written from right to left.
    """
    shown = text[:LONGEST]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(text) <= LONGEST else f"{shown}… ({len(text)} letters)"


class PearError(Exception):
    """A failure that one or two lines explain; the command line prints it without a traceback.

    Args:
        lines: what is wrong, then what to do about it; whatever they quote, each is printed as one line.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)


class ConfigError(PearError):
    """A setting is unknown, of the wrong type or out of its range."""


class DataError(PearError):
    """A dataset is missing, unreadable or not what it claims to be."""


class AlteredFile(DataError):
    """A file of a dataset is not the one that its publisher has."""


class StoreError(PearError):
    """The artifact store cannot do what was asked of it."""


class MissingArtifact(StoreError):
    """No complete artifact stands under this key."""


class OldSchema(StoreError):
    """An artifact was written by an older pear, whose manifests and keys this one does not use."""


class CorruptArtifact(StoreError):
    """An artifact's files are not the ones that its manifest describes."""


class TrainingError(PearError):
    """Training cannot continue: a loss that is not finite, an adapter that is never called."""


class MergeError(PearError):
    """A merged model does not repeat the adapted one."""


def near(word: str, options: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for the option nearest to `word`, or "" where none is near."""
    folded = {option.casefold(): option for option in options}
    matches = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f'; did you mean "{folded[matches[0]]}"?' if matches else ""


def describe(error: BaseException) -> str:
    """What went wrong in one or two lines; an error that is not the user's says where to look."""
    if isinstance(error, PearError):
        return str(error)
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}; PEAR_TRACEBACK=1 shows where" if first else type(error).__name__
