"""The commands that use the models of artifacts, or a backbone alone."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pear_cli.cli.options import STORE, Model, Name, OfAStore, Overrides, Root, Weights, open_store
from pear_cli.errors import near
from pear_cli.launch.flags import UsageError
from pear_cli.system.streams import complain

FORMATS = ("safetensors", "onnx", "peft")
NEEDS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "peft": ("peft",)}
"""Packages that a format needs, which the extra of its name brings."""

PREDICTED = ("tsv", "csv", "json")

app = typer.Typer()


@app.command()
def sites(
    overrides: Overrides = None,
    config_dir: Annotated[
        Path | None, typer.Option(help="A folder with further presets, searched first.")
    ] = None,
) -> None:
    """List the slots of a backbone, where adapters can attach: slot, sites, channels in and out.

    On a terminal it is a table; elsewhere the four stand in a line each, with tabs between.

    \b
    pear sites
    pear sites backbone=timm backbone.name=vit_base_patch16_224
    """
    from pear_cli.launch import jobs, launch
    from pear_cli.report.terminal import layout

    rows = [tuple(map(str, row)) for row in jobs.slots(launch.composed(overrides or (), config_dir))]
    if not sys.stdout.isatty():
        typer.echo("\n".join(map("\t".join, rows)))
        return
    titles = ("slot", "sites", "channels in", "channels out")
    columns = zip(titles, zip(*rows, strict=True), strict=True)
    layout.print_table(
        [layout.Column(*column, right=column[0] != "slot") for column in columns], layout.console()
    )


@app.command(name="predict", cls=OfAStore)
def label(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files, folders, or - for a list on stdin.")],
    also: Annotated[
        list[str] | None, typer.Option(help="A further model on the same backbone; may be repeated.")
    ] = None,
    topk: Annotated[int, typer.Option(help="How many labels an image.")] = 5,
    weights: Weights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    form: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(PREDICTED)}; csv has a header.")
    ] = PREDICTED[0],
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    store: Root = STORE,
) -> None:
    """Label images with a trained model.

    \b
    pear predict 3f2a photos/ --topk 1
    pear predict 3f2a photos/ --format csv > labels.csv
    pear predict 3f2a photos/ --also digits.safetensors
    find photos -name '*.png' | pear predict digits.safetensors -
    """
    from pear_cli.api import predict
    from pear_cli.config import choices, settings

    _check_format(form, PREDICTED)
    runtime = settings.Runtime(
        device, choices.Precision.float32, None, 0, str(store), None, choices.Tracker.none
    )
    place = open_store(store)
    form = "json" if as_json else form
    raise typer.Exit(
        predict.predict(
            model, images, runtime, also=also or (), store=place, weights=weights, topk=topk, form=form
        )
    )


@app.command(cls=OfAStore)
def export(
    artifact: Name,
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors or .onnx; of peft, the folder.")],
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = FORMATS[0],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Fold the adapters into the backbone: plain timm weights.")
    ] = False,
    weights: Weights = None,
    store: Root = STORE,
) -> None:
    """Write the adapters of a model into one file, without the frozen backbone; or both, merged or as ONNX.

    A folder of --format peft is what PeftModel.from_pretrained loads.

    \b
    pear export 3f2a --out digits.safetensors
    pear export 3f2a --format safetensors --out digits.safetensors --force
    pear export 3f2a --merge --out vit_digits.safetensors
    pear export 3f2a --format onnx --out digits.onnx
    pear export 3f2a --format peft --out digits_peft
    """
    from pear_cli.export import merged, target, writing

    _check_format(form, FORMATS)
    if merge and form != FORMATS[0]:
        raise UsageError(
            f"--merge goes with --format {FORMATS[0]}; an ONNX file is merged where that is exact"
        )
    if form in NEEDS:
        target.needs(*NEEDS[form], extra=form)
        exporting = import_module(f"pear_cli.export.{form}")
        for remark in exporting.export(artifact, out, open_store(store), weights, force=force):
            complain("export", remark)
    elif merge:
        error = merged.export(artifact, out, open_store(store), weights, force=force)
        complain("export", f"max |Δlogit| between the adapted and the merged model: {error:.1e}")
    elif weights is not None:
        raise UsageError(
            f"--weights goes with --merge or --format {'|'.join(NEEDS)}; otherwise frozen weights stay here"
        )
    else:
        writing.export(artifact, out, open_store(store), force=force)
    typer.echo(out)


def _check_format(form: str, known: Sequence[str]) -> None:
    if form not in known:
        raise UsageError(f'no format "{form}"{near(form, known) or ";"} formats: {", ".join(known)}')
