"""From lines of a comparison to one HTML file; every text of an artifact is escaped."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pear_cli.errors import PearError, printable
from pear_cli.experiment.lineage import UNKNOWN, Lineage
from pear_cli.report import spelling
from pear_cli.report.analysis.benchmark import models
from pear_cli.report.analysis.comparison import Line, of_another_protocol
from pear_cli.report.analysis.estimate import Estimate, quantile
from pear_cli.report.analysis.fields import fields, percent
from pear_cli.report.analysis.formats import notes_of
from pear_cli.report.analysis.protocol import differences
from pear_cli.report.charts import artifact, frontier, render
from pear_cli.report.charts.style import PAGE, Spec, finished

ENVIRONMENT = (
    *("pear-cli", "torch", "timm", "safetensors", "python"),
    *("platform", "device", "threads", "git_commit"),
)


def page(lines: Sequence[Line], filters: Sequence[str] = (), opened: int = 8) -> str:
    """The report as HTML.

    Args:
        lines: what is compared, in the order of the table.
        filters: with which the evaluations were chosen.
        opened: of how many experiments the inside is drawn, at least 0; first those on the fronts of accuracy
            and size.
    """
    loader = PackageLoader("pear_cli.report.page", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_shown
    )
    environment.filters |= {"percent": percent, "mean": lambda seeds: percent(Estimate.from_seeds(seeds))}
    here = resources.files("pear_cli.report.page")
    script, style = (here.joinpath(name).read_text("utf-8") for name in ("page.js", "page.css"))
    complaints: list[str] = []
    chosen = _opened(lines, opened)
    shown = [(line, _inside(line, complaints)) for line in chosen]
    datasets = list(dict.fromkeys(line.dataset for line in lines))
    return environment.get_template("page.html").render(
        lines=lines,
        fields=fields(lines),
        filters=" ".join(filters),
        datasets=datasets,
        methods=list(dict.fromkeys(line.method for line in lines)),
        notes=[*notes_of(lines), *complaints],
        tradeoffs=[(dataset, _tradeoffs(lines, dataset)) for dataset in datasets],
        benchmarks=models(lines),
        insides=shown,
        left_out=len(lines) - len(shown),
        protocols=[(dataset, _protocols(lines, dataset)) for dataset in datasets],
        environment=_environment(lines),
        data=_data(lines),
        seeds=len({seed for line in lines for seed in line.by_seed}),
        images=sum(len(line.group.rows) for line in lines),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("pear-cli"),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _shown(value: Any) -> Any:
    """What a place of the template becomes: text from elsewhere is made printable, then escaped."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


Drawn = dict[str, str]
"""A chart of the page: `svg`, an element, and `caption`, what it says."""


def _draw(spec: Spec | None, caption: str) -> list[Drawn]:
    return [] if spec is None else [{"svg": render.inline(finished(spec, PAGE)), "caption": caption}]


def _tradeoffs(lines: Sequence[Line], dataset: str) -> list[Drawn]:
    here = [line for line in lines if line.dataset == dataset]
    size = "Accuracy and stored bytes. Dashed: the Pareto front (no smaller model is more accurate)."
    ratio = "Accuracy and the share of pruned units."
    bars = " Bars: the 95% t-interval over seeds; for a single seed, ± 2 standard errors of the test set."
    size, ratio = size + bars, ratio + bars
    levels = len(frontier.compared(here))
    if levels > frontier.LEVELS:
        ratio += f" The {levels} that they are compared with are left out."
    elif levels:
        ratio += " Dashed: what they are compared with, as reported."
    if count := frontier.unnamed(here):
        size += f" {count} series, too many for a legend: a mark under the pointer says what it is."
        ratio += " A mark under the pointer says what it is."
    if of_another_protocol(here):
        size += " Hollow: of another protocol than most, and no part of it."
    return _draw(frontier.pareto(here, PAGE), size) + _draw(frontier.ratios(here, PAGE), ratio)


def _opened(lines: Sequence[Line], most: int) -> list[Line]:
    """The lines whose inside is drawn: of the fronts, then those that share adapters, the best first."""
    fronts = set()
    for dataset in dict.fromkeys(line.dataset for line in lines):
        fronts |= {line.number for line in frontier.front([x for x in lines if x.dataset == dataset])}

    def worth(line: Line) -> tuple[bool, bool, float]:
        shares = line.first.value("share.rule") not in (None, "none")
        return line.number not in fronts, not shares, -(line.accuracy.mean if line.accuracy else 0.0)

    first = sorted(lines, key=worth)[:most]
    return sorted(first, key=lambda line: line.number)


def _inside(line: Line, complaints: list[str]) -> list[Drawn]:
    """The charts of an experiment; what is damaged is left out, and said."""
    newest = line.first.lineage
    charts: list[Drawn] = []
    lineages: list[Lineage] = [row.lineage for row in line.group.rows]
    for kind, draw in artifact.KINDS.items():
        try:
            found = artifact.learning(lineages, PAGE) if kind == "curves" else draw(newest, PAGE)
        except PearError as error:
            complaints.append(f"{line.dataset}, {line.name}, {kind}: {error}")
            continue
        of = "" if kind == "curves" else f" Of seed {spelling.value(newest.setting('seed'))}."
        charts += _draw(found.spec, found.caption + of) if found else []
    return charts


def _protocols(lines: Sequence[Line], dataset: str) -> list[tuple[str, str]]:
    """What all evaluations of a dataset have in common; several values where they have not."""
    here = [line.protocol for line in lines if line.dataset == dataset]
    apart = differences(here)
    names = dict.fromkeys(name for one in here for name in one)
    common = {name: next(one[name] for one in here if name in one) for name in names}
    return [(name, " ≠ ".join(apart.get(name, (common[name],)))) for name in names if name != "dataset"]


def _environment(lines: Iterable[Line]) -> list[tuple[str, str]]:
    """What the evaluations were computed with, the most usual first."""
    manifests = [row.artifact.manifest["environment"] for line in lines for row in line.group.rows]
    found = []
    for name in ENVIRONMENT:
        values = Counter(spelling.value(manifest[name]) for manifest in manifests if name in manifest)
        said = [text[:12] if name == "git_commit" else text for text, _ in values.most_common(4)]
        more = f" and {len(values) - 4} more" if len(values) > 4 else ""
        found += [(name, ", ".join(said) + more)] if said else []
    return found


def _data(lines: Sequence[Line]) -> dict[str, Any]:
    """What the page itself computes with: the accuracy of each seed, and the quantiles of t."""
    most = max((len(line.by_seed) for line in lines), default=1)
    rows = [
        {
            "dataset": line.dataset,
            "name": line.name,
            "seeds": {} if line.first.lineage.label == UNKNOWN else line.by_seed,
            "baseline": next((other.number for other in lines if other.group is line.baseline), None),
            "protocol": dict(line.protocol),
        }
        for line in lines
    ]
    return {"rows": rows, "t": [round(quantile(n), 6) for n in range(1, max(2, most))]}
