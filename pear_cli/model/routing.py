"""Which rows of a batch belong to which task, while a backbone computes them together."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pear_cli.adapters.host import Host, Product, add_products

Place = tuple[str, str]
"""The module whose output is added to, and the one whose input is read; empty where they are the same."""


@dataclass(frozen=True)
class Task:
    """What one task adds to a backbone.

    Args:
        work: at each adapted module, its low-rank products, or the host that computes other updates.
        silent: by attention, factors (C) of the channels that its heads write.
        heads: weight (K, C) and bias (K) of each classifier, by its path below `head`.
    """

    work: dict[Place, Host | tuple[Product, ...]]
    silent: dict[str, Tensor]
    heads: dict[str, tuple[Tensor, Tensor | None]]

    @property
    def classes(self) -> int:
        return len(next(iter(self.heads.values()))[0])


@dataclass
class Route:
    """One batch on its way.

    Args:
        owner: whose batch it is; hooks of others leave it alone.
        groups: the tasks in the batch, each with its first image and the one after its last.
        images: how many there are.
        read: what a module read that others add to later.
    """

    owner: object
    groups: Sequence[tuple[Task, int, int]]
    images: int
    read: dict[Place, Tensor] = field(default_factory=dict)

    def rows(self, tensor: Tensor) -> list[tuple[Task, slice]]:
        """The rows of each task in a tensor that has equally many rows an image, such as windows."""
        each = len(tensor) // self.images
        return [(task, slice(first * each, last * each)) for task, first, last in self.groups]

    def add(self, place: Place, x: Tensor, out: Tensor) -> Tensor:
        """A module's output with the updates of every task at that place.

        Args:
            x: what its adapters read, a row an image or several.
            out: what the module wrote; it may be changed in place.
        """
        rows = self.rows(out)
        works = [task.work.get(place, ()) for task, _ in rows]
        products = [work for work in works if isinstance(work, tuple)]
        if len(works) == 1:
            return _add(works[0], x, out)
        if len(products) == len(works):
            return _add_stacked(products, [some.stop - some.start for _, some in rows], x, out)
        for work, (_, some) in zip(works, rows, strict=True):
            out[some] = _add(work, x[some], out[some])
        return out

    def silence(self, attention: str, x: Tensor) -> Tensor:
        """What the heads of an attention wrote, (B, N, C), without those that a task has switched off."""
        for task, some in self.rows(x):
            if attention in task.silent:
                x = x.clone()
                x[some] *= task.silent[attention]
        return x

    def classify(self, path: str, features: Tensor) -> Tensor:
        """The logits of each image by its task's classifier, (B, …, C) -> (B, …, K), padded with zeros."""
        most = max(task.classes for task, _, _ in self.groups)
        found = features.new_zeros(*features.shape[:-1], most)
        for task, some in self.rows(features):
            found[some, ..., : task.classes] = F.linear(features[some], *task.heads[path])
        return found


OFF = nn.Dropout(0.0)
"""One for all tasks: a module takes more memory than a small adapter's matrix."""

ROUTE: ContextVar[Route | None] = ContextVar("route", default=None)
"""The batch that this thread, or this coroutine, computes."""


def _add(work: Host | tuple[Product, ...], x: Tensor, out: Tensor) -> Tensor:
    """A module's output with the updates of one task."""
    return work.add(x, out) if isinstance(work, Host) else add_products(work, x, out)


def _add_stacked(works: Sequence[Sequence[Product]], counts: Sequence[int], x: Tensor, out: Tensor) -> Tensor:
    """Low-rank products of several tasks in two batched products, each task on its own rows."""
    width = max(sum(len(product.down) for product in products) for products in works)
    if not width:
        return out
    shape, channels = out.shape, out.shape[-1]
    downs = x.new_zeros(len(works), width, x.shape[-1])  # T, ΣD, C_in
    ups = x.new_zeros(len(works), width, channels)  # T, ΣD, C_out
    for number, products in enumerate(works):
        at = 0
        for product in products:
            rank = len(product.down)
            first, last = product.rows or (0, channels)
            downs[number, at : at + rank] = product.down
            ups[number, at : at + rank, first:last] = product.up.T * product.weight
            at += rank
    which = torch.repeat_interleave(torch.arange(len(works)), torch.tensor(counts)).to(x.device)
    h = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), downs[which].transpose(1, 2))  # B, N, ΣD
    return out.reshape(len(x), -1, channels).baddbmm_(h, ups[which]).view(shape)


def light(host: Host) -> Host | tuple[Product, ...]:
    """A host's products, where they are no more than its adapters' own tensors; else the host itself."""
    own = {
        t.untyped_storage().data_ptr() for p in host.positions for a, _ in p.parts() for t in a.parameters()
    }
    products = host.products()
    if products is None or any(
        p.untyped_storage().data_ptr() not in own for q in products for p in (q.up, q.down)
    ):
        return host
    return tuple(replace(p, up=p.up.detach(), down=p.down.detach(), dropout=OFF) for p in products)
