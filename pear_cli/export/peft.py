"""A task as a folder of PEFT adapters, for `PeftModel.from_pretrained`.

    model = timm.create_model(name, pretrained=True, num_classes=K)
    model = PeftModel.from_pretrained(model, "folder")     # the same logits; the classifier comes along

LoRA, and whatever else adds a low-rank product, becomes PEFT's LoRA; NEAT at whole layers its PEANuT, and
Lily with routers its Lily. PEFT has one adapter a layer: those of q and v in a fused `qkv` are stacked, and
one that serves at several sites is written at each. `pear.json` beside them has classes, preprocessing and
the backbone.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from pear_cli.adapters.adaptation import Adaptation
from pear_cli.adapters.adapter import Adapter
from pear_cli.adapters.lily import Lily, RouterStats
from pear_cli.adapters.neat import NEAT
from pear_cli.backbone.backbones import arguments, head, renew_head
from pear_cli.backbone.channels import bare
from pear_cli.errors import ConfigError, MergeError, StoreError
from pear_cli.export import load
from pear_cli.export.source import origin
from pear_cli.model import models
from pear_cli.model.description import Description
from pear_cli.model.preprocessing import timm_names
from pear_cli.store.store import Store

TOLERANCE = 1e-4  # of max |Δlogit|, relative to the largest logit where that is above 1


@dataclass(frozen=True)
class Form:
    """Adapters as PEFT takes them.

    Args:
        kind: of PEFT, such as `Lora`.
        settings: of its config.
        tensors: by layer, then by the attribute of PEFT's layer, with an index where it is a list.
    """

    kind: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]


def export(
    source: str | Path,
    out: Path,
    store: Store | None = None,
    weights: str | None = None,
    *,
    force: bool = False,
) -> list[str]:
    """Write the adapters and the classifier of a model as PEFT has them, once PEFT has given its logits.

    Args:
        source: a train, checkpoint or eval artifact: its folder, or a key of `store`; or an exported file.
        out: the folder to make.
        store: where keys are looked up.
        weights: a file with the frozen weights, where this machine has them elsewhere.
        force: replace a folder that is there.

    Returns:
        What a reader must know: stacked ranks, expanded adapters, bytes.

    Raises:
        ConfigError: `out` is there already, or adapters that PEFT has no type for.
        MergeError: PEFT gives other logits.
        StoreError: no model there, or the folder cannot be written.
    """
    if out.exists() and not force:
        raise ConfigError(f"--out {out} is there already; choose another name, or --force")
    model, description = load.load_described(source, store, weights)
    _check(model, description)
    form = _form(models.adaptation(model))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            new = Path(folder) / "new"
            _write(model, form, new)
            error = _error(model, description, new)
            about = _about(model, description, origin(source, store))
            (new / "pear.json").write_text(json.dumps(about, indent=1))
            if out.exists():
                out.rename(Path(folder) / "old")
            new.rename(out)
    except OSError as failure:
        raise StoreError(f"cannot write {out}: {failure.strerror or failure}") from None
    return [*_remarks(model, form, out), f"max |Δlogit| between the model and PEFT's: {error:.1e}"]


def _check(model: nn.Module, description: Description) -> None:
    adapted, method = models.adaptation(model), models.adaptation(model).method
    if method.adapts("bias") or description.widths or not method.slots:
        raise ConfigError(
            f"{type(method).__name__} has no adapters that PEFT could hold, or its channels are pruned; "
            "export it with --format safetensors, or --merge"
        )
    if adapted.silent:
        raise ConfigError("attention heads are switched off, which PEFT cannot; export it with --merge")


def _form(adapted: Adaptation) -> Form:
    """The form of PEFT that adapters have.

    Raises:
        ConfigError: there is none.
    """
    for form in (_peanut, _lily, _lora):
        if (found := form(adapted)) is not None:
            return found
    position = next(p for host in adapted.hosts if host.products() is None for p in host.positions)
    raise ConfigError(
        f"PEFT has no type for the adapter of {position.site.name}: {adapted.method.unmerged}; export it "
        "with --format safetensors"
    )


def _lora(adapted: Adaptation) -> Form | None:
    """Every update of a layer as one product: B·A with alpha/r = 1, since B holds the scales."""
    tensors = {}
    for host in adapted.hosts:
        products, site = host.products(), host.positions[0].site
        if products is None or host.reads or site.tap is not None:
            return None
        width = len(host.positions[0].frozen.get_parameter("weight"))
        ups = []
        for product in products:
            up = torch.zeros(width, product.up.shape[1])  # C_out, D
            up[slice(*(product.rows or (0, width)))] = product.up * product.weight
            ups.append(up)
        if ups:
            down = torch.cat([product.down for product in products])  # ΣD, C_in
            tensors[host.path] = {"lora_A": down, "lora_B": torch.cat(ups, dim=1)}
    ranks = {name: len(found["lora_A"]) for name, found in tensors.items()}
    widest = max(ranks.values(), default=1)
    dropout = getattr(adapted.method, "dropout", 0.0) if adapted.method.drops_input else 0.0
    settings = {"r": widest, "lora_alpha": widest, "rank_pattern": ranks, "alpha_pattern": ranks}
    return Form("Lora", settings | {"lora_dropout": dropout}, tensors)


def _whole(adapted: Adaptation) -> dict[str, Adapter] | None:
    """The adapter of each layer, where all adapt whole layers and no knowledge is kept beside them."""
    found = {}
    for position in adapted.each():
        site = position.site
        if site.rows is not None or site.reads or position.weight is None or position.knowledge is not None:
            return None
        if position.owner is not None:
            found[site.module] = position.owner
    return found


def _peanut(adapted: Adaptation) -> Form | None:
    """NEAT of whole layers; PEFT's depth counts its pairs."""
    method, layers = adapted.method, _whole(adapted)
    if not isinstance(method, NEAT) or not layers:
        return None
    tensors = {}
    for name, adapter in layers.items():
        inner = {f"peanut_encoders.{i}": getattr(adapter, f"encoder{i}") for i in range(method.pairs)}
        inner |= {f"peanut_decoders.{i}": getattr(adapter, f"decoder{i}") for i in range(method.pairs)}
        tensors[name] = {"peanut_A": adapter.down, "peanut_B": adapter.up, **inner}
    settings = {"r": method.rank, "depth": method.pairs, "scaling": method.scale, "act_fn": "relu"}
    return Form("Peanut", settings, tensors)


def _lily(adapted: Adaptation) -> Form | None:
    """Lily with routers at linear layers; each layer has an `lp` and a `hp` of its own in PEFT's folder."""
    method, layers = adapted.method, _whole(adapted)
    if not isinstance(method, Lily) or method.monoscale or not layers:
        return None
    if method.router_stats is not RouterStats.batch:
        return None
    tensors = {
        name: {
            "lily_A": adapter.banks["lp"],
            "lily_B": adapter.banks["hp"].flatten(0, 1),  # E, D, C_out -> E·D, C_out
            "lily_router": adapter.router,
        }
        for name, adapter in layers.items()
    }
    settings = {"r": method.rank, "stride_A": 1, "num_B": method.experts, "scaling": method.scale}
    return Form("Lily", settings, tensors)


def _write(model: nn.Module, form: Form, folder: Path) -> None:
    """Let PEFT write the adapters, and the classifier as what it calls modules to save."""
    config = getattr(peft, f"{form.kind}Config")(
        target_modules=list(form.tensors), modules_to_save=_classifiers(model), **form.settings
    )
    theirs: Any = peft.get_peft_model(bare(model), config)
    for name, tensors in form.tensors.items():
        layer = theirs.base_model.model.get_submodule(name)
        for attribute, tensor in tensors.items():
            first, _, index = attribute.partition(".")
            module = getattr(layer, first)["default"]
            parameter = (module[int(index)] if index else module).weight
            assert parameter.shape == tensor.shape
            parameter.data.copy_(tensor.detach())
    theirs.save_pretrained(folder)


def _classifiers(model: nn.Module) -> list[str]:
    """The paths of the modules that write logits."""
    found = head(model)
    own = list(found) if isinstance(found, nn.ModuleList) else [found]
    return [name for name, module in model.named_modules() if any(module is one for one in own)]


def _error(model: nn.Module, description: Description, folder: Path) -> float:
    """How far PEFT's model of the folder is from ours, on the fixed batch.

    Raises:
        MergeError: too far.
    """
    plain, expected = bare(model), models.probe(model, description.size)
    renew_head(plain, len(description.classes))
    theirs = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.inference_mode():
        found = theirs(models.fixed_batch(description.size))
    error: float = (found - expected).abs().max().item()
    if not error <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise MergeError(f"PEFT gives other logits than the model (off by {error:.2g}); nothing was written")
    return error


def _about(model: nn.Module, description: Description, key: str) -> dict[str, Any]:
    """What the folder does not say otherwise."""
    return {
        "timm_name": description.backbone.name,
        "timm_args": arguments(description.backbone, model),
        "weights": description.weights,
        "classes": list(description.classes),
        "data": timm_names(model),
        "origin": key,
    }


def _remarks(model: nn.Module, form: Form, out: Path) -> list[str]:
    adapted, said = models.adaptation(model), []
    if form.kind == "Lora":
        stacked = [host for host in adapted.hosts if len(host.products() or ()) > 1]
        if stacked:
            name = stacked[0].path
            rank = len(form.tensors[name]["lora_A"])
            said.append(
                f"PEFT has one LoRA a layer: {len(stacked)} layers stack several, {name} to rank {rank}"
            )
    mine = sum(t.numel() * t.element_size() for t in models.tensors(model).values())
    theirs = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    shared = any(count > 1 for count in adapted.served().values())
    expanded = "; adapters that are shared stand at each of their sites" if shared else ""
    return [*said, f"{theirs} bytes, {mine} in pear{expanded}"]
