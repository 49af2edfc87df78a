"""A merged model in one safetensors file: plain timm weights, for programs that know nothing of pear.

    with safe_open(file, "pt") as f:
        texts = {name: json.loads(text) for name, text in f.metadata().items()}
    model = timm.create_model(
        texts["timm_name"], num_classes=len(texts["classes"]), checkpoint_path=file, **texts["timm_args"]
    )
    transform = timm.data.create_transform(**texts["data"])

Its header holds JSON texts: `pear_merged`, the version of this format; `timm_name` and `timm_args`, the
architecture, and `timm_version`, which it was made with; `classes`, the label names in logit order; `data`,
how an image is prepared, by timm's names: `input_size`, `mean`, `std`, interpolation and crop; and `origin`,
the key of the artifact, empty where there was none.
"""

from pathlib import Path

from safetensors.torch import save
from torch import nn

from pear_cli.backbone import backbones
from pear_cli.errors import ConfigError
from pear_cli.export import load, single_file, target
from pear_cli.export.source import origin
from pear_cli.model import merge
from pear_cli.model.description import Description
from pear_cli.model.preprocessing import timm_names
from pear_cli.store import tensorfile
from pear_cli.store.canonical import canonical
from pear_cli.store.store import Store

FORMAT = 1


def export(
    source: str | Path,
    out: Path,
    store: Store | None = None,
    weights: str | None = None,
    *,
    force: bool = False,
) -> float:
    """Fold the adapters of a model into its weights, and write them, whole or not at all.

    The same artifact gives the same bytes on the same machine.

    Args:
        source: a train, checkpoint or eval artifact: its folder, or a key of `store`; or an exported file.
        out: the file, which must end in `.safetensors`.
        store: where keys are looked up.
        weights: a file with the frozen weights, where this machine has them elsewhere.
        force: replace a file that is there.

    Returns:
        max |Δlogit| between the adapted model and the merged one, on a fixed batch in float32.

    Raises:
        ConfigError: `out` is there already or has another ending, frozen weights that are missing, updates
            that no weight can hold, or a network whose channels are pruned.
        MergeError: the logits are not the same.
        StoreError: no model there, or the file cannot be written.
    """
    target.check(out, force=force)
    model, description = load.load_described(source, store, weights)
    if description.widths:
        raise ConfigError(
            f"{source}: its channels are pruned, and timm has no {description.backbone.name} of these "
            "widths; export it without --merge"
        )
    plain = merge.merge(model)
    merge.settle_biases(plain, model)
    error = merge.error(model, plain)
    # A tensor that two names share is written twice: timm asks for every name.
    state = {name: tensor.clone().contiguous() for name, tensor in plain.state_dict().items()}
    header, data = tensorfile.split(save(state))
    target.write(out, tensorfile.join(header, data, _texts(plain, description, origin(source, store))))
    return error


def _texts(model: nn.Module, description: Description, key: str) -> dict[str, str]:
    """The header, by name."""
    said = {
        single_file.MERGED: FORMAT,
        "timm_name": description.backbone.name,
        "timm_args": backbones.arguments(description.backbone, model),
        "timm_version": description.timm,
        "classes": list(description.classes),
        "data": timm_names(model),
        "origin": key,
    }
    return {name: canonical(value) for name, value in said.items()}
