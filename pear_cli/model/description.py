"""The description of an adapted model: all that rebuilds it, but its tensors."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pear_cli.adapters.method import Method
from pear_cli.backbone.widths import Widths
from pear_cli.config.choices import Interpolation, Resize, ShareRule, Unit
from pear_cli.config.node import node
from pear_cli.config.range import Checked, Range, require
from pear_cli.config.settings import LARGEST, Backbone, Knowledge
from pear_cli.data.dataset import Normalization
from pear_cli.data.preparation import Preparation
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.pruning import preservable
from pear_cli.pruning.mask import Mask
from pear_cli.store.canonical import canonical, plain, to_node


@dataclass(frozen=True)
class Description(Checked, group="model"):
    """All that rebuilds an adapted model, but its tensors.

    Args:
        backbone: the frozen network.
        weights: hash of the file of its weights; null where there was none, of a model of somebody's own.
        method: config node of the method.
        classes: label names, in logit order.
        normalization: channel statistics of the input.
        size: side of the input, in pixels.
        resize, crop_pct, interpolation: how images become that size, see `Preparation`.
        owners: the share map; empty for methods without adapters.
        knowledge: what is kept of pruned adapters, and where.
        mask: the pruned heads or rank-1 components, where the unit is one of these.
        widths: the channels that remain of the backbone, where some are pruned, as `Widths.to_json` has
            them; null or empty where all remain.
        timm: the version that the model was made with.
        grey_range: the value of 16-bit grey that is white in its images; null is 65535.
        frozen: hash of its frozen tensors, see `frozen_hash`; null in descriptions that are older.
    """

    backbone: Backbone
    weights: str | None
    method: dict[str, Any]
    classes: tuple[str, ...]
    normalization: Normalization
    size: Annotated[int, LARGEST]
    resize: Resize
    crop_pct: Annotated[float, Range(0, 1, above=True)]
    interpolation: Interpolation
    owners: dict[str, str | None]
    knowledge: Knowledge | None
    mask: Mask | None
    widths: dict[str, dict[str, str]] | None
    timm: str
    grey_range: Annotated[int, Range(1, 2**31 - 1)] | None = None
    frozen: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        resolved = self.interpolation is not Interpolation.backbone
        require(resolved, "model.interpolation", self.interpolation.value, "bicubic or bilinear")
        require(bool(self.weights or self.frozen), "model.weights", self.weights, "a hash")
        require(len(self.classes) >= 2, "model.classes", self.classes, "two or more")
        twice = [name for name, times in Counter(self.classes).items() if times > 1]
        require(not twice, "model.classes", twice, "each class once")
        if self.mask is not None:
            masked = self.built_method().units & {Unit.head, Unit.rank, Unit.block}
            known = ", ".join(sorted(unit.value for unit in masked)) or "none"
            require(
                self.mask.unit in masked, "model.mask.unit", self.mask.unit.value, f"masks are of {known}"
            )
        if self.widths:
            narrows = Unit.channel in self.built_method().units and self.mask is None
            require(narrows, "model.widths", "given", "of methods whose channels are pruned, without a mask")
            Widths.from_json(self.widths)
        if self.knowledge is not None:  # the rule is not described; absorb, which needs one, keeps nothing
            preservable.check(self.knowledge, ShareRule.none, self.built_method())

    def to_json(self) -> dict[str, Any]:
        knowledge = self.knowledge and dataclasses.asdict(self.knowledge) | {
            "kind": self.knowledge.kind.value
        }
        method = {k: list(v) if isinstance(v, tuple) else v for k, v in self.method.items()}
        changed = {
            "backbone": self.backbone.to_json(),
            "normalization": self.normalization.value,
            "resize": self.resize.value,
            "interpolation": self.interpolation.value,
            "knowledge": knowledge,
            "mask": self.mask and self.mask.to_json(),
            "method": method,
        }
        described = dataclasses.asdict(self) | changed
        later = [name for name in ("grey_range", "frozen") if described[name] is None]
        return {name: value for name, value in described.items() if name not in later}

    @classmethod
    def from_json(cls, value: Any) -> "Description":
        """Validate a description that may come from a stranger.

        Raises:
            CorruptArtifact: it is not a description, or would do more than describe; the message names the
                field.
        """
        try:
            _check_harmless(value)
            described = node(value, cls, "model")
            method = to_node(described.built_method(), "lr")
            given = {**value, "method": method | value["method"]}  # it may lack later settings
            _check_unchanged(given, described.to_json() | {"method": method})
        except (KeyError, TypeError) as error:
            raise CorruptArtifact(f"not the description of a model of pear: {error!r}") from None
        except (ConfigError, CorruptArtifact, RecursionError) as error:
            raise CorruptArtifact(f"not the description of a model of pear: {error}") from None
        return described

    def built_widths(self) -> Widths | None:
        """The channels that are left, where some are pruned."""
        return Widths.from_json(self.widths) if self.widths else None

    @property
    def preparation(self) -> Preparation:
        """How an image becomes the model's input, before normalisation."""
        return Preparation(self.size, self.resize, self.crop_pct, self.interpolation)

    def built_method(self) -> Method:
        """The method; its learning rate, which only training reads, is made up."""
        return node({**self.method, "lr": 1.0}, Method, "model.method")


def _check_unchanged(given: Any, read: Any, name: str = "model") -> None:
    """Raise ConfigError where reading a description had to convert a value, or to leave one out."""
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for key in {**given, **read}:
            _check_unchanged(given.get(key), read.get(key), f"{name}.{key}")
    elif canonical(given, name) != canonical(read, name):
        raise ConfigError(f"{name} = {given!r} should be {plain(read)!r}")


def _check_harmless(description: Any) -> None:
    """Refuse a description that holds an interpolation such as `${oc.env:…}`."""
    if "${" in canonical(description, "model"):
        raise CorruptArtifact("the description of the model holds an interpolation (${…}); it is refused")
