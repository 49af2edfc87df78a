"""A model as one ONNX file, for runtimes that know neither pear nor torch.

    session = onnxruntime.InferenceSession("model.onnx")
    (logits,) = session.run(None, {"images": x})          # (B, 3, H, W) -> (B, K), any B
    texts = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}

Its metadata are JSON texts: `classes`, the label names in logit order; `data`, how an image is prepared, by
timm's names; and `origin`, the key of the artifact, empty where there was none.
"""

import warnings
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import nn

from pear_cli.errors import ConfigError, MergeError
from pear_cli.export import load, target
from pear_cli.export.source import origin
from pear_cli.model import merge, models
from pear_cli.model.description import Description
from pear_cli.model.preprocessing import timm_names
from pear_cli.store.canonical import canonical
from pear_cli.store.store import Store

OPSET = 18
TOLERANCE = 1e-4  # of max |Δlogit|, relative to the largest logit where that is above 1


def export(
    source: str | Path,
    out: Path,
    store: Store | None = None,
    weights: str | None = None,
    *,
    force: bool = False,
) -> list[str]:
    """Write a whole model, backbone included, as ONNX, once onnxruntime has given its logits.

    Adapters are merged into the weights where these can hold them; pruned channels stay away.

    Args:
        source: a train, checkpoint or eval artifact: its folder, or a key of `store`; or an exported file.
        out: the file, which must end in `.onnx`.
        store: where keys are looked up.
        weights: a file with the frozen weights, where this machine has them elsewhere.
        force: replace a file that is there.

    Returns:
        What a reader must know: how far onnxruntime's logits are from the model's.

    Raises:
        ConfigError: `out` is there already or has another ending, or torch cannot export the network.
        MergeError: onnxruntime gives other logits.
        StoreError: no model there, or the file cannot be written.
    """
    target.check(out, suffix=".onnx", force=force)
    model, description = load.load_described(source, store, weights)
    try:
        plain = merge.checked(model)
    except (ConfigError, MergeError):
        plain = model
    content = _content(plain, description, origin(source, store))
    error = _checked(content, model, description.size)
    target.write(out, content)
    return [f"max |Δlogit| between the model and onnxruntime: {error:.1e}"]


def _content(model: nn.Module, description: Description, key: str) -> bytes:
    images = models.fixed_batch(description.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                model.eval(),
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:  # torch has a dozen kinds for what it cannot follow
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConfigError(f"torch cannot export {description.backbone.name} as ONNX: {line}") from None
    assert program is not None
    proto = program.model_proto
    texts = {"classes": list(description.classes), "data": timm_names(model), "origin": key}
    onnx.helper.set_model_props(proto, {name: canonical(value) for name, value in texts.items()})
    return bytes(proto.SerializeToString())


def _checked(content: bytes, model: nn.Module, size: int) -> float:
    """How far onnxruntime is from the model, on batches of four and of one."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images, expected = models.fixed_batch(size), models.probe(model, size)
    found = [torch.from_numpy(session.run(None, {"images": x.numpy()})[0]) for x in (images, images[:1])]
    error: float = max((logits - expected[: len(logits)]).abs().max().item() for logits in found)
    if not error <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise MergeError(
            f"onnxruntime gives other logits than the model (off by {error:.2g}); nothing was written"
        )
    return error
