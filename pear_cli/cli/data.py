"""The commands that look after datasets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pear_cli.cli.options import Listed, Overrides
from pear_cli.errors import DataError, near, printable
from pear_cli.launch.flags import UsageError
from pear_cli.system.streams import complain, stdout_to_stderr, until_closed

if TYPE_CHECKING:
    from pear_cli.data.dataset import Dataset

Further = Annotated[Path | None, typer.Option(help="A folder with further presets, searched first.")]
Line = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Lines = Annotated[bool, typer.Option("--json", help="Print lines of JSON, one a dataset.")]

app = typer.Typer(
    cls=Listed,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""The datasets: which are there, fetch one, check one.

    They lie in $PEAR_DATA, or in ~/.cache/pear/data, unless dataset.root says otherwise.

    \b
    pear data ls
    pear data prepare dataset=cifar100
    pear data verify dataset=imagefolder dataset.root=photos
    """,
)


@app.command(name="ls")
def list_datasets(overrides: Overrides = None, config_dir: Further = None, as_json: Lines = False) -> None:
    """List the presets: place, images a split, classes and fingerprint, or where it comes from.

    With overrides only the dataset that they name. Nothing is downloaded or decoded: numbers are those of the
    last `prepare`, as long as no file has changed.

    \b
    pear data ls
    pear data ls dataset=imagefolder dataset.root=photos --json
    """
    from pear_cli.data import inventory, storage
    from pear_cli.launch import jobs, launch
    from pear_cli.report.terminal import datasets, layout

    if overrides:
        found = [_dataset(overrides, config_dir)]
    else:
        found = list(jobs.datasets(launch.presets("dataset", config_dir)))
    rows = [inventory.to_json(dataset, inventory.known(dataset)) for dataset in found]
    with until_closed():
        if as_json:
            typer.echo("\n".join(map(json.dumps, rows)))
        else:
            datasets.print_datasets(rows, layout.console())
    complain(
        "data ls", f"datasets without a root of their own lie in {storage.home()}; $PEAR_DATA names another"
    )


@app.command()
def prepare(overrides: Overrides = None, config_dir: Further = None, as_json: Line = False) -> None:
    """Fetch a dataset unless it is there, read it once, and print split, images, classes and fingerprint.

    \b
    pear data prepare dataset=cifar100
    pear data prepare dataset=vtab dataset.task=dtd dataset.root=vtab-1k
    """
    from pear_cli.data import inventory, verify

    dataset = _dataset(overrides, config_dir)
    with stdout_to_stderr():
        try:
            found = inventory.survey(dataset)
        except DataError as error:
            raise verify.all_at_once(dataset, error) from None
    with until_closed():
        if as_json:
            typer.echo(json.dumps(inventory.to_json(dataset, found)))
            return
        for split, images in found.images.items():
            typer.echo(f"{split}\t{images}\t{found.classes}\t{found.fingerprints[split]}")


@app.command(name="verify")
def verify_dataset(
    overrides: Overrides = None,
    config_dir: Further = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="What may be; it is told on stderr. Several: --allow A --allow B"),
    ] = None,
    as_json: Line = False,
) -> None:
    """Decode every image of a dataset, and print all that is wrong: kind, split, name, what.

    Exit code 1 where there is anything. Kinds: missing, unreadable, list, repeated, label, class, skipped
    (no image by its suffix), duplicate (one picture in two splits), count, checksum.

    \b
    pear data verify dataset=imagefolder dataset.root=photos
    pear data verify dataset=cifar100 --allow duplicate
    """
    from pear_cli.data import condition, verify
    from pear_cli.system import progress

    for kind in allow or ():
        if kind not in condition.KINDS:
            raise UsageError(
                f'--allow cannot be "{kind}"{near(kind, condition.KINDS) or ";"} '
                f"kinds: {', '.join(condition.KINDS)}"
            )
    dataset, shown = _dataset(overrides, config_dir), []
    with stdout_to_stderr():
        findings = verify.Findings(dataset)
        with progress.ticker(f"verify {dataset.name}", findings.images) as ticker:
            problems = [*findings.listed, *findings.decoded(ticker.step)]
    for problem in problems:
        if problem.kind in (allow or ()):
            complain("data verify", f"{problem.kind} (allowed): {problem.name} {problem.message}")
        else:
            shown.append(problem)
    with until_closed():
        if as_json:
            report = {"dataset": dataset.name, "decoded": findings.images, "problems": list(map(vars, shown))}
            typer.echo(json.dumps(report))
        else:
            for problem in shown:
                typer.echo(
                    _printable("\t".join((problem.kind, problem.split, problem.name, problem.message)))
                )
    wrong = f"things that are wrong: {len(shown)}" if shown else "nothing is wrong"
    complain("data verify", f"{dataset.name}: {findings.images} images decoded, {wrong}")
    if shown:
        raise typer.Exit(1)


def _dataset(overrides: list[str] | None, config_dir: Path | None) -> "Dataset":
    from pear_cli.launch import jobs, launch

    return jobs.dataset(launch.composed(overrides or (), config_dir))


def _printable(text: str) -> str:
    """A text with file names in it, whatever bytes they have; one line stays one line."""
    return "\t".join(map(printable, text.replace("\n", " ").split("\t")))
