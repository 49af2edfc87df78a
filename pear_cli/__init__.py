"""Pear: visual parameter-efficient fine-tuning with adapter pruning and sharing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pear_cli.export.load import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is first asked for: `import pear_cli` itself stays light."""
    if name == "load":
        from pear_cli.export.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
