"""The identity of a frozen backbone in memory: one hash over the tensors that no task changes."""

import hashlib
import json

import torch
from torch import nn

from pear_cli.adapters.method import Method
from pear_cli.backbone import batch_norm
from pear_cli.backbone.backbones import head


def frozen_hash(model: nn.Module, method: Method) -> str:
    """sha256 over the frozen tensors of a backbone, by name: name, dtype, shape and bytes.

    Frozen are its parameters and its persistent buffers of floating-point numbers, but for the classifier,
    what the method trains, and adapters. It is the same before and after adapters are attached, with any
    number of classes, and on any device.
    """
    changed = {id(p) for p in head(model).parameters()} | {
        id(t) for t in batch_norm.statistics(model).values()
    }
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        trained = isinstance(tensor, nn.Parameter) and method.adapts(name)
        if name.startswith("adaptation.") or id(tensor) in changed or trained:
            continue
        if tensor.is_floating_point():
            about = [name, str(tensor.dtype), list(tensor.shape)]
            digest.update(json.dumps(about).encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
