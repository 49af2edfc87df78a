"""Typed settings, their choices, and the way from a Hydra node to them."""

from typing import Any


def presets_of(group: str) -> dict[str, dict[str, Any]]:
    from pear_cli.config import presets

    return presets.presets_of(group)
