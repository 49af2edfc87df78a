"""Reading values from the JSON of an artifact, which may come from a stranger."""

from collections.abc import Iterator
from contextlib import contextmanager

from pear_cli.errors import CorruptArtifact


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Read `what`, such as `a mask`, from JSON in the block.

    Raises:
        CorruptArtifact: the JSON lacks something, or has another type or value there.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"not {what}: {type(error).__name__} {error}") from None


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
