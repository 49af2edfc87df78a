"""Channel groups: which parameters of a network a channel, or a whole attention head, has everywhere.

Channels are coupled: one of a convolution is also one of the norm after it and of all that read it. The
couplings are torch-pruning's. Groups in which removing a channel is more than setting it to zero are left
alone: those that a norm over the channels reads, such as the residual stream of a transformer.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from pear_cli.backbone.site import Site
from pear_cli.backbone.sites import all_sites, heads_reader
from pear_cli.backbone.widths import TABLE, Group, Member, Side, Widths, tensor_at
from pear_cli.errors import ConfigError, CorruptArtifact

EFFECT, ROUNDING = 1e-3, 1e-5
"""How far the logits of a narrowed network may be off: of the effect of what went, and of the logits."""

COUPLED = (nn.Linear, nn.Conv2d, nn.BatchNorm2d)
"""Modules that may be of a group; of any other with parameters, zero channels do not stay zero."""


def by_unit(values: Tensor, dim: int, index: Tensor) -> Tensor:
    """Sum values over the channels of each unit: (…), (units, k) -> (units)."""
    others = [d for d in range(values.ndim) if d != dim]
    line = values.sum(others) if others else values
    return line[index.to(line.device)].sum(1)


def groups(model: nn.Module, size: int) -> list[Group]:
    """The channel groups of a frozen backbone, in the order in which the network computes them.

    Args:
        model: a timm model without adapters, on the CPU.
        size: side of its input, in pixels.

    Raises:
        ConfigError: nothing can be pruned, or torch-pruning cannot follow the model.
    """
    whole, model = model, copy.deepcopy(model)  # following a model may leave traces in it
    names = {module: name for name, module in model.named_modules()}
    sites = _whole_sites(model)
    try:
        found = [
            _group(model, group, names, sites)
            for group in _graph(model, torch.zeros(1, 3, size, size)).get_all_groups(
                ignored_layers=_classifiers(model), root_module_types=[nn.Conv2d, nn.Linear]
            )
        ]
    except (RuntimeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:
        raise ConfigError(
            f"score.unit = channel: the channels of {type(model).__name__} cannot be followed: {error}"
        ) from None
    order = list(names.values())
    kept = sorted((g for g in found if g is not None), key=lambda group: order.index(group.name))
    if not _sound(whole, size, kept):
        kept = [group for group in kept if _sound(whole, size, [group])]
    if not kept:
        raise ConfigError(
            f"score.unit = channel: {type(model).__name__} has no channels that can be removed alone"
        )
    return kept


def coupled(model: nn.Module, of: Sequence[Group], x: Tensor) -> list[tuple[Any, Tensor]]:
    """torch-pruning's own groups of a model, for its scores, each with the channels of every unit.

    A group whose units are several channels of the module that writes them, such as heads, goes from the
    module that reads them, as the library has it.

    Args:
        model: a timm model without adapters; following it may leave traces in it.
        of: groups of it, as `groups` finds them.
        x: any image for it, (1, 3, H, W).
    """
    graph, found = _graph(model, x), []
    for group in of:
        root = group.members[0]
        if root.index.shape[1] > 1:
            root = next(member for member in group.members if member.side is Side.read)
        module = model.get_submodule(root.module)
        pruner = graph.get_pruner_of_module(module)
        prune = pruner.prune_in_channels if root.side is Side.read else pruner.prune_out_channels
        found.append((graph.get_pruning_group(module, prune, list(range(root.index.numel()))), root.index))
    return found


def _graph(model: nn.Module, x: Tensor) -> Any:
    model.requires_grad_(True)  # the couplings are found along the gradient
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that are no module's: such groups are left alone
        return torch_pruning.DependencyGraph().build_dependency(model.eval(), x)


def _whole_sites(model: nn.Module) -> dict[str, Site]:
    """The sites of whole modules; none of a network that has no blocks, whose channels go all the same."""
    try:
        return {site.module: site for site in all_sites(model) if site.rows is None}
    except ConfigError:
        return {}


@torch.no_grad()
def _sound(model: nn.Module, size: int, of: list[Group]) -> bool:
    """Whether a network that lost half of the channels says what it says with zeros in their place.

    Norms, LayerScales, biases and classifier are noise meanwhile: some start at zero, or nearly, and would
    hide what goes wrong behind them.
    """
    pruned = {group.name: range(0, len(group), 2) if len(group) > 1 else () for group in of}
    noise = torch.Generator().manual_seed(0)
    whole = copy.deepcopy(model).eval()
    classifier = [parameter for module in _classifiers(whole) for parameter in module.parameters()]
    for parameter in (*whole.parameters(), *classifier):
        if parameter.ndim < 2 or any(parameter is own for own in classifier):
            parameter.normal_(generator=noise)
    narrow, zeroed = copy.deepcopy(whole), copy.deepcopy(whole)
    for group in of:
        for member in group.members:
            gone = member.index[list(pruned[group.name])].flatten()
            for name, dim in member.parameters(zeroed).items() if member.side is Side.out else ():
                tensor = tensor_at(zeroed, name)
                if isinstance(tensor, nn.Parameter):
                    tensor.index_fill_(dim, gone, 0)
    x = torch.randn(1, 3, size, size, generator=noise)
    try:
        Widths.without(pruned, of).narrow(narrow)
        expected, found = zeroed(x), narrow(x)
    except (RuntimeError, AttributeError, LookupError, TypeError, CorruptArtifact):
        return False
    effect, logits, error = (t.abs().max() for t in (expected - whole(x), expected, found - expected))
    return bool(error <= EFFECT * min(effect, logits) + ROUNDING * logits)


def bare(model: nn.Module) -> nn.Module:
    """A copy of an adapted model on the CPU, with neither adapters nor hooks."""
    plain = copy.deepcopy(model).cpu()
    strip(plain)
    return plain


def strip(model: nn.Module) -> None:
    """Take adapters and hooks from a model, in place."""
    del model.adaptation
    unhook(model)


def unhook(model: nn.Module) -> None:
    """Take all hooks from a model, in place."""
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


def _classifiers(model: Any) -> list[nn.Module]:
    head = model.get_classifier()
    return list(head) if isinstance(head, tuple | list) else [head]


def _group(
    model: nn.Module, group: Any, names: Mapping[nn.Module, str], sites: Mapping[str, Site]
) -> Group | None:
    """A group of torch-pruning in pear's terms; None where it cannot be pruned."""
    members = [item for item in group if item.dep.target.module in names]
    others = {type(item.dep.target.module) for item in group} - {type(m.dep.target.module) for m in members}
    root = names[members[0].dep.target.module]
    site = sites.get(root)
    if root.endswith(".qkv"):
        return _heads(model, site)
    if any(kind is nn.Parameter for kind in others):
        return None
    if site is None and not isinstance(members[0].dep.target.module, nn.Conv2d):
        return None
    if not all(isinstance(item.dep.target.module, COUPLED) for item in members):
        return None
    found = _gate(members, names) or _members(members, names)
    if not found:
        return None
    block = site.block if site is not None else 0
    return Group(root, site.slot if site else root.rpartition(".")[2], block, False, found)


def _gate(items: Sequence[Any], names: Mapping[nn.Module, str]) -> tuple[Member, ...]:
    """The hidden channels of an mlp whose one layer writes gates and values, side by side; none of others."""
    writes, reads = items[0].dep.target.module, items[-1].dep.target.module
    linear = len(items) == 2 and isinstance(writes, nn.Linear) and isinstance(reads, nn.Linear)
    if not linear or writes.weight.shape[0] != 2 * reads.weight.shape[1]:
        return ()
    hidden = torch.arange(reads.weight.shape[1])[:, None]
    both = torch.cat([hidden, len(hidden) + hidden], dim=1)  # hidden, 2
    return Member(names[writes], Side.out, both), Member(names[reads], Side.read, hidden)


def _members(items: Sequence[Any], names: Mapping[nn.Module, str]) -> tuple[Member, ...]:
    """Where the channels of a group are; nothing where removing one takes more than its own."""
    found = []
    for item in items:
        module = item.dep.target.module
        reads = item.dep.handler.__name__ == "prune_in_channels" and not isinstance(module, nn.BatchNorm2d)
        index = _by_root(item, len(items[0].idxs))
        there = module.weight.shape[1 if reads else 0]
        if index is None or index.numel() != there or getattr(module, "groups", 1) not in (1, there):
            return ()  # convolutions whose groups have several channels
        found.append(Member(names[module], Side.read if reads else Side.out, index))
    return tuple(found)


def _by_root(item: Any, width: int) -> Tensor | None:
    """The indices of a member by the channel of the root, (width, k); None where they are uneven."""
    rows: list[list[int]] = [[] for _ in range(width)]
    for index, root in zip(item.idxs, item.root_idxs, strict=True):
        rows[int(root)].append(int(index))
    even = len({len(row) for row in rows}) == 1 and rows[0]
    once = sorted(i for row in rows for i in row) == list(range(len(item.idxs)))
    return torch.tensor(rows) if even and once else None


def _heads(model: nn.Module, site: Site | None) -> Group | None:
    """The heads of an attention with a fused qkv, whose layout is known and which no norm reads."""
    if site is None or site.heads is None:
        return None
    attention = site.module.removesuffix(".qkv")
    module: Any = model.get_submodule(attention)
    own = {name for name, _ in module.named_parameters(recurse=False)} - {TABLE}
    try:
        reader = heads_reader(model, attention)
    except ConfigError:
        return None
    if own or any(isinstance(child, nn.LayerNorm | nn.Sequential) for child in module.children()):
        return None  # parameters by head that are not followed here: q_bias, logit_scale, a position mlp
    heads, width = site.heads, reader.in_features // site.heads
    columns = torch.arange(heads * width).view(heads, width)  # H, Dh
    rows = torch.cat([columns + part * heads * width for part in range(3)], dim=1)  # H, 3·Dh
    members = (
        Member(site.module, Side.out, rows),
        Member(f"{attention}.proj", Side.read, columns),
        Member(attention, Side.heads, torch.arange(heads)[:, None]),
    )
    return Group(site.module, site.slot, site.block, True, members)
