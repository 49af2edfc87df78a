"""Pear: visual parameter-efficient fine-tuning with adapter pruning and sharing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pear_cli.api.adapted import Adapted, adapted, attach
    from pear_cli.api.bank import TaskBank
    from pear_cli.export.load import load
    from pear_cli.model.costs import Costs
    from pear_cli.model.preprocessing import Preprocessing

PLACES = {
    "Adapted": "api.adapted",
    "Costs": "model.costs",
    "Preprocessing": "model.preprocessing",
    "TaskBank": "api.bank",
    "adapted": "api.adapted",
    "attach": "api.adapted",
    "load": "export.load",
}
__all__ = ["Adapted", "Costs", "Preprocessing", "TaskBank", "adapted", "attach", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import pear_cli` itself stays light."""
    if name in PLACES:
        return getattr(import_module(f"pear_cli.{PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
