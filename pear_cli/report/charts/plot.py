"""One plot as a file of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pear_cli.errors import ConfigError, MissingArtifact
from pear_cli.experiment.lineage import Lineage
from pear_cli.report.analysis import listing
from pear_cli.report.analysis.comparison import Line, compare
from pear_cli.report.charts import artifact, frontier, render
from pear_cli.report.charts.style import PAPER, Palette, Spec, finished
from pear_cli.store.store import Store

COMPARED: dict[str, Callable[[Sequence[Line], Palette], Spec | None]] = {
    "pareto": frontier.pareto,
    "ratio": frontier.ratios,
}
"""Plots of many evaluations of one dataset; the others are of one artifact."""

KINDS = (*artifact.KINDS, *COMPARED)


def plot(kind: str, what: Sequence[str], store: Store, out: Path, title: str = "") -> bytes:
    """Draw a plot.

    Args:
        kind: one of KINDS.
        what: filters for the plots in COMPARED; artifacts for `curves`, one artifact for the others.
        store: where they are.
        out: the file it is for; its name says the format.
        title: above the plot.

    Raises:
        ConfigError: an unknown format, several datasets, or several artifacts where one is drawn.
        MissingArtifact: there is nothing to draw.
    """
    form = render.form_of(out)
    spec = _compared(kind, what, store) if kind in COMPARED else _of_artifacts(kind, what, store)
    return render.image(finished(spec, PAPER, title), form)


def _compared(kind: str, filters: Sequence[str], store: Store) -> Spec:
    lines = compare(listing.rows(store, filters))
    datasets = list(dict.fromkeys(line.dataset for line in lines))
    if len(datasets) > 1:
        raise ConfigError(
            f"a plot is of one dataset, here are {', '.join(datasets)}; add dataset={datasets[0]}"
        )
    spec = COMPARED[kind](lines, PAPER)
    if spec is None:
        needed = "pruned models" if kind == "ratio" else "evaluations"
        raise MissingArtifact(f"there are no {needed} to draw; see what there is: pear ls stage=eval")
    return spec


def _of_artifacts(kind: str, names: Sequence[str], store: Store) -> Spec:
    lineages = [Lineage.from_artifact(store.resolve(name), store.find) for name in names]
    if len(lineages) == 1:
        return artifact.drawn(kind, lineages[0], PAPER).spec
    if kind != "curves":
        raise ConfigError(f"{kind} is of one artifact, here are {len(names)}; only curves takes several")
    found = artifact.learning(lineages, PAPER)
    if found is None:
        raise MissingArtifact("none of these has a learning curve")
    return found.spec
