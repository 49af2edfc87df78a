"""An exported file, summed up in a screen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pear_cli.experiment.lineage import method_name
from pear_cli.export import single_file
from pear_cli.report import spelling
from pear_cli.report.analysis.pruned import Channels, Pruned, from_description
from pear_cli.report.terminal import layout
from pear_cli.report.terminal.show import classes_of, print_drawing, sections
from pear_cli.scoring.importance import Importance

PREPARED = ("size", "resize", "crop_pct", "interpolation", "normalization")


def print_exported(path: Path, console: Console, *, everything: bool = False) -> None:
    """Print an exported file: its data and result, where it comes from, and a drawing of its adapters.

    Args:
        everything: also every setting, metric and cost.

    Raises:
        CorruptArtifact: an altered file, or none that pear exported.
    """
    file = single_file.read(path)
    description, origin = _mapping(file.description), _mapping(file.origin)
    first = _first(description, origin, _mapping(file.about))
    found = {
        "model": {**_mapping(description.get("backbone")), **_mapping(description.get("method"))},
        "images": {name: description.get(name) for name in PREPARED},
        "metrics": _mapping(origin.get("metrics")),
        "costs": _mapping(origin.get("accounting")),
        "environment": _mapping(origin.get("environment")),
    }
    plain = {
        title: {name: value for name, value in values.items() if not isinstance(value, Mapping)}
        for title, values in found.items()
    }
    about = f"exported {spelling.value(origin.get('stage'))} {spelling.value(origin.get('key'))}"
    lines = [Text(about, "bold"), Text(spelling.printable(str(path)))]
    rest = plain if everything else {}
    lines += sections({**first, **rest}, layout.width_of(console))
    layout.write(console, lines + [Text("every setting, metric and cost: --all", "dim")] * (not everything))
    print_drawing(_pruned(file, description), console)


def _first(
    description: Mapping[str, Any], origin: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """What a reader wants to know first: the data, the result, and how long it was trained."""
    metrics = {**_mapping(origin.get("metrics")), **about}
    backbone, method = _mapping(description.get("backbone")), _mapping(description.get("method"))
    name = method_name(method.get("_target_"))
    found: dict[str, Mapping[str, Any]] = {
        "dataset": {spelling.value(about.get("dataset") or "unknown"): classes_of(description)},
        "model": {spelling.value(name or "unknown"): f"on {backbone.get('name')}"},
    }
    kept = ("accuracy", "train_accuracy", "val200_accuracy", "test_accuracy", "epochs")
    found["result"] = {name: metrics[name] for name in kept if name in metrics}
    return found


def _pruned(file: single_file.SingleFile, description: Mapping[str, Any]) -> Pruned | None:
    """What an exported model keeps, or None where it has no adapters, or where it is not known."""
    if file.layers is not None:
        try:
            return Channels({str(at): (int(kept), int(count)) for at, (kept, count) in file.layers.items()})
        except (TypeError, ValueError, AttributeError):
            raise single_file.damaged(file.path, "its header has no sound layers") from None
    if not description.get("owners"):
        return None
    scores = Importance.from_json(file.importance).by_name() if file.importance is not None else {}
    return from_description(description, scores)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
