"""What a caller says in keywords, as typed settings: those of the presets, but for what is said."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from pear_cli.adapters.method import Method
from pear_cli.config.choices import KnowledgeKind, ShareRule, Unit
from pear_cli.config.node import chosen, node
from pear_cli.config.presets import defaults, presets_of
from pear_cli.config.settings import Knowledge
from pear_cli.errors import ConfigError, DataError, near
from pear_cli.scoring.probe import Calibration
from pear_cli.store.canonical import to_node

T = TypeVar("T")


def method_of(method: str | Method, settings: Mapping[str, Any]) -> Method:
    """The method that is meant, with some settings of one's own."""
    if isinstance(method, Method):
        return node({**to_node(method), **settings}, Method, "method").normalised()
    presets = presets_of("method")
    if method not in presets:
        known = ", ".join(presets)
        raise ConfigError(f"method = {method!r} is unknown{near(str(method), presets) or ';'} use {known}")
    return node({**presets[method], **settings}, Method, "method").normalised()


def settings_of(group: str, kind: type[T], given: Mapping[str, Any]) -> T:
    """Settings of a group: those of the root's defaults, but for what is given."""
    chosen_by_root, root = defaults()
    preset = presets_of(group)[chosen_by_root[group]]
    return node({**root.get(group, {}), **preset, **given}, kind, group)


def sharing(unit: Unit, share: str, knowledge: str | Mapping[str, Any]) -> tuple[ShareRule, Knowledge]:
    """The share rule, and what is kept of pruned adapters; nothing of either for parts of adapters."""
    asked = {"kind": knowledge} if isinstance(knowledge, str) else dict(knowledge)
    if unit is not Unit.adapter:
        if share not in ("ranked", "none") or asked.get("kind") not in ("frozen", "none"):
            raise ConfigError(
                f"share and knowledge are of whole adapters; pruned {unit.value}s are neither shared nor "
                "kept: leave them out"
            )
        share, asked = "none", {"kind": "none"}
    presets = presets_of("knowledge")
    kind = chosen(KnowledgeKind, asked.get("kind", "frozen"), "knowledge.kind")
    kept = node({**presets[kind.value], **asked}, Knowledge, "knowledge")
    return chosen(ShareRule, share, "share.rule"), kept


def calibration(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Calibration:
    """Batches that can be read several times, on the device."""
    again = list(batches) if isinstance(batches, Iterator) else batches

    def read() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in again:
            sound = isinstance(batch, tuple | list) and len(batch) == 2
            if not sound or not all(isinstance(part, Tensor) for part in batch) or batch[0].ndim != 4:
                raise DataError("score reads batches of (images, labels): tensors (B, 3, H, W) and (B,)")
            yield batch[0].to(device), batch[1].to(device)

    return read
