"""The commands that make pages, tables and plots of what is stored."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pear_cli.cli.options import STORE, Lines, Listed, Name, OfAStore, Root, complain_of_unread, open_store
from pear_cli.errors import StoreError, near
from pear_cli.launch.flags import UsageError
from pear_cli.system.files import write

PAGE = Path("report.html")
SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json", ".tex": "latex"}

app = typer.Typer()


class Report(Listed):
    """`pear report FILTER…` makes a report; only the word `diff` is a command of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, args if args[:1] == ["diff"] else ["make", *args]))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == "make" else name, command, rest


reports = typer.Typer(
    cls=Report, rich_markup_mode=None, help="Compare evaluations on a page, or two artifacts."
)
app.add_typer(reports, name="report")

Conditions = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Only those, as for `pear ls`.", show_default=False),
]


@reports.command("make", cls=OfAStore)
def make(
    filters: Conditions = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; replaced if it is there.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="html, md, csv, json or latex; else as --out ends.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Compare with these; by default with the dense model."),
    ] = None,
    insides: Annotated[int, typer.Option(min=0, help="Of how many experiments the inside is drawn.")] = 8,
    store: Root = STORE,
) -> None:
    """Compare evaluations: one HTML file that needs no network, or a table on stdout.

    \b
    pear report dataset=digits 'prune.ratio>=0.5' --out report.html
    pear report --baseline method=linear --format latex
    pear report diff 3f2a 99bc    what differs between two artifacts
    """
    from pear_cli.report.analysis import comparison, formats, listing

    known = ("html", *formats.FORMATS)
    chosen = form or (SUFFIXES.get(out.suffix.lower(), "") if out else "html")
    if chosen not in known:
        what = f"{out} does not say which format;"
        if form is not None:
            what = f'no format "{form}"{near(form, known) or ";"}'
        raise UsageError(f"{what} formats: {', '.join(known)}")
    unread: dict[Path, StoreError] = {}
    conditions = filters or []
    found = listing.rows(open_store(store), conditions, on_error=unread.__setitem__)
    lines = comparison.compare(found, baseline or ())
    complain_of_unread("report", unread)
    if not lines:
        matching = f" matching {' '.join(conditions)}" if conditions else ""
        raise StoreError(f"{store} has no evaluations{matching}; see what there is: pear ls stage=eval")
    if chosen == "html":
        from pear_cli.report.page.page import page

        text = page(lines, conditions, insides)
    else:
        text = formats.FORMATS[chosen](lines)
    if out is None and chosen != "html":
        typer.echo(text, nl=False)
        return
    target = out or PAGE
    write(target, text.encode())
    typer.echo(target)


@reports.command("diff", cls=OfAStore)
def difference_of(first: Name, second: Name, as_json: Lines = False, store: Root = STORE) -> None:
    """What differs between two artifacts: settings, protocol, results.

    \b
    pear report diff 3f2a 99bc
    """
    from pear_cli.report.analysis import difference
    from pear_cli.report.terminal import diff, layout

    place = open_store(store)
    found = difference.between(place.resolve(first), place.resolve(second), place)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        diff.print_difference(found, layout.console())


@app.command(name="plot", cls=OfAStore)
def draw(
    kind: Annotated[
        str, typer.Argument(help="importance, share-map, curves, confusion, calibration, pareto or ratio.")
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write: .png, .svg or .pdf; replaced if it is there.")
    ],
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARTIFACT|KEY=VALUE", help="An artifact; filters for pareto and ratio."),
    ] = None,
    title: Annotated[str, typer.Option(help="Above the plot.")] = "",
    store: Root = STORE,
) -> None:
    """Draw one plot into a file.

    \b
    pear plot share-map 3f2a --out map.pdf
    pear plot pareto dataset=digits --out front.png
    """
    from pear_cli.report.charts.plot import COMPARED, KINDS, plot

    if kind not in KINDS:
        raise UsageError(f'no plot "{kind}"{near(kind, KINDS) or ";"} plots: {", ".join(KINDS)}')
    if not what and kind not in COMPARED:
        raise UsageError(f"pear plot {kind} needs an artifact; see what there is: pear ls")
    write(out, plot(kind, what or [], open_store(store), out, title))
    typer.echo(out)
