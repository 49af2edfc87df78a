"""The commands that look after artifacts, and use the models in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pear_cli.cli.options import STORE, Json, Name, Overrides, Root, complain

if TYPE_CHECKING:
    from pear_cli.store import Store

app = typer.Typer()


@app.command()
def sites(overrides: Overrides = None) -> None:
    """List the slots of a backbone, where adapters can attach: slot, sites, widths in and out.

    \b
    pear sites
    pear sites backbone=timm backbone.name=vit_base_patch16_224
    """
    from pear_cli import hydra_app, jobs

    for line in jobs.slots(hydra_app.composed(overrides or ())):
        typer.echo(line)


@app.command(name="ls")
def list_artifacts(
    filters: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", show_default=False)] = None,
    as_json: Json = False,
    store: Root = STORE,
) -> None:
    """List what the store holds.

    \b
    pear ls
    pear ls stage=eval dataset=digits 'prune.ratio>=0.5'
    """
    from rich.console import Console

    from pear_cli.report import listing, table

    found = listing.rows(_store(store), filters or (), on_error=lambda path, error: complain("ls", error))
    if as_json:
        typer.echo("".join(f"{line}\n" for line in listing.json_lines(found)), nl=False)
    else:
        table.print_listing(found, Console())


@app.command()
def show(artifact: Name, as_json: Json = False, store: Root = STORE) -> None:
    """Show one artifact: where it comes from, what was measured, its share map.

    \b
    pear show 3f2a
    """
    from rich.console import Console

    from pear_cli.report import listing
    from pear_cli.report.show import print_artifact

    place = _store(store)
    found = place.resolve(artifact)
    if as_json:
        typer.echo(listing.json_lines([listing.row(found, place)])[0])
    else:
        print_artifact(found, place, Console())


@app.command()
def rm(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT")],
    recursive: Annotated[bool, typer.Option("--recursive", help="Also what was made from it.")] = False,
    store: Root = STORE,
) -> None:
    """Remove artifacts, sound or damaged; prints the folders that went.

    \b
    pear rm 3f2a
    """
    place = _store(store)
    for name in artifacts:
        for gone in place.remove(place.locate(name), recursive=recursive):
            typer.echo(gone)


@app.command()
def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, only say what would go.")
    ] = False,
    orphans: Annotated[bool, typer.Option("--orphans", help="Also artifacts whose inputs are gone.")] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Also unused artifacts older than this.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every hash; set damaged ones aside.")
    ] = False,
    store: Root = STORE,
) -> None:
    """Remove what killed processes left behind; complete artifacts only on request.

    \b
    pear gc --dry-run
    pear gc --orphans --older-than 30
    """
    seconds = None if older_than is None else older_than * 86400
    report = _store(store).collect(dry_run=dry_run, orphans=orphans, older_than=seconds, verify=verify)
    for item in report.items:
        typer.echo(f"{item.kind}\t{item.size}\t{item.path}")
    verb = "would free" if dry_run else "freed"
    typer.echo(f"{verb} {report.size} bytes in {len(report.items)} items", err=True)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="An artifact, or a file that `pear export` wrote.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders, or - for a list on stdin.")],
    topk: Annotated[int, typer.Option(help="How many labels an image.")] = 5,
    weights: Annotated[str | None, typer.Option(help="The frozen weights, if they are elsewhere.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Json = False,
    store: Root = STORE,
) -> None:
    """Label images with a trained model.

    \b
    pear predict 3f2a photos/ --topk 1
    """
    from pear_cli import predict as prediction
    from pear_cli.nodes import Precision, Runtime

    runtime = Runtime(device, Precision.float32, None, 0, str(store))
    place = _store(store)
    raise typer.Exit(
        prediction.predict(model, images, runtime, store=place, weights=weights, topk=topk, as_json=as_json)
    )


@app.command()
def export(
    artifact: Name,
    out: Annotated[Path, typer.Option(help="The file to write; it ends in .safetensors.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    store: Root = STORE,
) -> None:
    """Write the adapters of a model into one file, without the frozen backbone.

    \b
    pear export 3f2a --out digits.safetensors
    """
    from pear_cli.export import single_file

    typer.echo(single_file.export(artifact, out, _store(store), force=force))


def _store(root: Path) -> "Store":
    from pear_cli.store import Store

    return Store(root)
