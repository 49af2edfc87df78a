"""Lists of images: text files whose lines are `path label`."""

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pear_cli.data.condition import Problem
from pear_cli.errors import DataError

FORM = "its lines are `path label`, such as images/0001.jpg 3"
LONGEST = 80  # characters of a line that a message repeats

LINE = re.compile(r"(?P<name>.*\S)\s+(?P<label>-?[0-9]{1,18})")

WRONG = (
    (r".*\0.*", "it has a NUL byte; save the list as UTF-8 text"),
    (r".*[\"'].*", "it has quotes; write path and label without any"),
    (r".*\S[,;].*", "a comma or semicolon separates path and label; a space has to"),
    (r"[\w\s]*\b(label|class|target|category)[\w\s]*", "it looks like a header; remove it"),
    (r"-?[0-9]+\s+.*[^\s0-9].*", "the label comes first; write the path before it"),
    (r".*\s[-+]?[0-9]{19,}", "the label is too large; count the classes from 0"),
    (r".*\s[-+]?[0-9.]+(e[-+]?[0-9]+)?", "the label is not written as a whole number, such as 3"),
    (r".*\S\s+\S+", "the label is not a number; number the classes from 0"),
    (r".*", "it has no label; add one after the path"),
)
"""What is wrong with a line that is not `path label`, and the remedy: the first of these that it matches."""


class Line(NamedTuple):
    """A line of a list: what it says, and where it stands."""

    name: str
    label: int
    place: str


def read(path: Path, split: str) -> tuple[list[Line], list[Problem]]:
    """The `path label` lines of a list, sorted, and what is wrong with the others; blank lines are skipped.

    Raises:
        DataError: a list that cannot be read, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"list {path} cannot be read: {reason}; {FORM}") from None
    lines, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        found = _parsed(line.strip(), path.parent)
        if isinstance(found, str):
            problems.append(Problem("list", split, place, found))
        else:
            lines.append(Line(*found, place))
    if not lines and not problems:
        raise DataError(f"list {path} is empty; {FORM}")
    return sorted(lines), problems


def _parsed(line: str, folder: Path) -> tuple[str, int] | str:
    """Path and label of a line, or what is wrong with it."""
    parts = LINE.fullmatch(line)
    inside = PurePosixPath(parts["name"] if parts else "")
    if parts is None or (re.search(r"[\0\"',;]", line) and not _exists(folder / inside)):
        why = next(why for form, why in WRONG if re.fullmatch(form, line, re.IGNORECASE | re.DOTALL))
        short = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
        return f"{short!r} is not `path label`: {why}"
    if inside.is_absolute() or ".." in inside.parts:
        return f"{inside} leaves the task's folder; use a path below it"
    if "\\" in str(inside) and not _exists(folder / inside):
        return f"{inside} has backslashes; write {str(inside).replace(chr(92), '/')}"
    return str(inside), int(parts["label"])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a NUL byte
        return False
