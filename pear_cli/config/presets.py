"""The config groups: where they are, and the presets that they have."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def presets_of(group: str) -> dict[str, dict[str, Any]]:
    """The presets of a group of ours by name, each with what it takes over from others of its group."""
    found: dict[str, dict[str, Any]] = {}

    def settings(name: str) -> dict[str, Any]:
        if name not in found:
            body = _read(config_dir() / group / f"{name}.yaml")
            below = [d for d in body.pop("defaults", ()) if isinstance(d, str) and d != "_self_"]
            merged = {key: value for d in below for key, value in settings(d.partition("@")[0]).items()}
            found[name] = merged | (body[group] if isinstance(body.get(group), dict) else body)
        return found[name]

    for path in sorted((config_dir() / group).glob("*.yaml")):
        settings(path.stem)
    return found


def _read(preset: Path) -> dict[str, Any]:
    body: Any = OmegaConf.to_container(OmegaConf.load(preset))
    return dict(body)


def defaults() -> tuple[dict[str, str], dict[str, Any]]:
    """The root config: the preset that each group has by default, and the settings of the root's own."""
    root = _read(config_dir() / "config.yaml")
    named = (entry for entry in root.pop("defaults") if isinstance(entry, dict))
    return {group: preset for entry in named for group, preset in entry.items()}, root


def config_dir() -> Path:
    """The folder of the config groups: conf/ beside the package in a source tree, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
