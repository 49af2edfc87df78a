"""How to make an artifact again: what its experiment changes of the defaults, as a command has it."""

import shlex
from collections.abc import Mapping
from typing import Any

from pear_cli.backbone.identity import weights_name
from pear_cli.config.presets import defaults, presets_of
from pear_cli.experiment.experiment import GROUPS
from pear_cli.experiment.lineage import Lineage
from pear_cli.report import spelling
from pear_cli.store.canonical import dotted

STORE = "outputs/store"
IN_FOLDERS = ("imagefolder", "vtab")
"""Presets of the user's own files, whose place no artifact has."""
COMMANDS = {"adapt": "train phase=shared"}
"""Steps whose command is not their name; an evaluation of pruned models is that of a whole run."""


def command(lineage: Lineage, step: str) -> str:
    """The command that makes an artifact, and what it is made from, where that is gone.

    Args:
        step: which of the steps of its experiment it is.
    """
    words = COMMANDS.get(step, step)
    if step == "eval":
        words = "run" if lineage.last("prune-share") else "eval phase=dense"
    store = str(lineage.artifact.path.parent.parent)
    place = [] if store == STORE else [f"runtime.store={store}"]
    return " ".join(["pear", words, *map(shlex.quote, [*overrides(lineage), *place])])


def overrides(lineage: Lineage) -> list[str]:
    """What an experiment changes of the defaults: presets, and single settings of these."""
    usual, root = defaults()
    found: list[str] = []
    for group in GROUPS:
        own = lineage.config.get(group)
        if isinstance(own, Mapping) and own:
            found += _of_group(group, own, usual.get(group), root.get(group) or {}, lineage)
    settings = lineage.config
    for name in ("seed", "select"):
        if settings.get(name, root[name]) != root[name]:
            found.append(f"{name}={spelling.value(settings[name])}")
    if settings.get("precision") not in (None, "float32"):
        found.append(f"runtime.precision={settings['precision']}")
    return found


def _of_group(
    group: str, own: Mapping[str, Any], default: str | None, base: Mapping[str, Any], lineage: Lineage
) -> list[str]:
    """The preset that is nearest to the settings of a group, and those in which they differ."""
    presets = {name: {**base, **body} for name, body in presets_of(group).items()}
    if "_target_" in own:
        presets = {name: body for name, body in presets.items() if body.get("_target_") == own["_target_"]}
    if not presets:  # of a plug-in, or of a pear that had other ones
        return []
    differences = {name: _differences(group, own, body, lineage) for name, body in presets.items()}
    nearest = min(differences, key=lambda name: (len(differences[name]), name != default))
    place = ["dataset.root=FOLDER"] if nearest in IN_FOLDERS else []
    return [*([] if nearest == default else [f"{group}={nearest}"]), *differences[nearest], *place]


def _differences(
    group: str, own: Mapping[str, Any], preset: Mapping[str, Any], lineage: Lineage
) -> list[str]:
    known, found = dict(dotted(preset)), []
    for name, value in dotted(own):
        stated = known.get(name)
        if isinstance(stated, str) and stated.startswith("${"):
            stated = _referred(stated[2:-1], lineage)
        derived = name == "train_split" and stated is None
        derived |= (group, name) == ("knowledge", "rank") and own.get("kind") != "lowrank"
        if name != "_target_" and not derived and _plain(value) != _plain(stated):
            new = "" if name in known else "++"
            found.append(f"{new}{group}.{name}={spelling.value(value)}")
    if group == "backbone":
        found += _weights(preset, lineage)
    if group == "optim" and lineage.setting("method.slots") == []:  # it trains as long as both phases
        found.append("optim.adapt_epochs=0")
    return found


def _referred(name: str, lineage: Lineage) -> Any:
    """What an interpolation of the presets comes to; the learning rate is that of the method's preset."""
    if name != "method.lr":
        return lineage.settings.get(name)
    method = lineage.config.get("method", {})
    rates = [
        (len(_differences("method", method, body, lineage)), body["lr"])
        for body in presets_of("method").values()
        if body.get("_target_") == method.get("_target_")
    ]
    return min(rates)[1] if rates else None


def _weights(preset: Mapping[str, Any], lineage: Lineage) -> list[str]:
    """The frozen weights, where the preset takes others; a file goes by a name that the reader fills in."""
    identity = lineage.provenance.get("weights")
    name = None if identity is None else weights_name(str(identity))
    if name is None or name == preset.get("weights"):
        return []
    if name == "random":
        plain = not (preset.get("weights") or preset.get("pretrained"))
        return [] if plain else ["backbone.pretrained=false", "backbone.weights=null"]
    return [] if preset.get("pretrained") else [f"backbone.weights={'FILE' if name == identity else name}"]


def _plain(value: Any) -> Any:
    """A setting as it is compared: 1 is 1.0, a tuple a list, and a text that reads as a number is one."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    try:
        return value if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return value
