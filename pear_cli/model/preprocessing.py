"""From a picture to a model's input, exactly as in training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pear_cli.config.choices import Interpolation, Resize
from pear_cli.data import transforms
from pear_cli.data.preparation import CROP_PCT, Preparation
from pear_cli.errors import ConfigError
from pear_cli.model.description import Description
from pear_cli.model.models import input_size, stated
from pear_cli.training.batches import Normaliser, statistics

DATA = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def timm_names(model: nn.Module) -> dict[str, Any]:
    """How the images of a loaded model are prepared, by the names of `timm.data.create_transform`."""
    known = stated(model)
    return {name: known[name] for name in DATA}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input: turned upright, RGB, resized, cropped, normalised.

        x = preprocessing(Image.open("photo.jpg"))        # (3, size, size), float32

    Args:
        size: side of the input, in pixels.
        resize: `direct` to the square, whatever the aspect, or `crop` from the centre.
        crop_pct: of `crop`, the share of the shorter side that is kept, in (0, 1].
        interpolation: `bicubic` or `bilinear`, with antialiasing.
        mean, std: channel statistics, in [0, 1] pixel units.
        grey_range: the value of 16-bit grey that is white; None is 65535.

    Raises:
        ConfigError: a value out of its range.
    """

    size: int
    resize: Resize = Resize.direct
    crop_pct: float = 1.0
    interpolation: Interpolation = Interpolation.bicubic
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    grey_range: int | None = None
    _normalise: Normaliser = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, kind in (("resize", Resize), ("interpolation", Interpolation)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError:
                names = ", ".join(k.value for k in kind if k is not Interpolation.backbone)
                raise ConfigError(f"{name} = {getattr(self, name)!r} is unknown; use {names}") from None
        if not (isinstance(self.size, int) and self.size >= 1 and 0 < self.crop_pct <= 1):
            raise ConfigError(f"size = {self.size} and crop_pct = {self.crop_pct}: at least 1, and in (0, 1]")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"mean = {self.mean} and std = {self.std}: three numbers each, and std above 0")
        object.__setattr__(self, "_normalise", Normaliser(self.mean, self.std, torch.device("cpu")))

    @property
    def preparation(self) -> Preparation:
        """All of it before normalisation."""
        return Preparation(self.size, self.resize, self.crop_pct, self.interpolation)

    def __call__(self, image: Image.Image) -> Tensor:
        """The input of one image of any mode and size, (3, size, size), float32.

        Raises:
            ValueError: an image that no model is to read, see `transforms.to_rgb`.
        """
        return self.of_rgb(transforms.to_rgb(image, self.grey_range))

    def of_rgb(self, image: Image.Image) -> Tensor:
        """The input of an image that is upright RGB already."""
        pixels = self.preparation(image)
        return self._normalise(torch.from_numpy(pixels).permute(2, 0, 1))

    @classmethod
    def described(cls, description: Description, model: nn.Module) -> "Preprocessing":
        """That of a description; a model states what the description leaves to its backbone."""
        d, backbone = description, description.backbone
        mean, std = statistics(model, d.normalization)
        if d.normalization.statistics is None and backbone.mean is not None and backbone.std is not None:
            mean, std = backbone.mean, backbone.std
        return cls(d.size, d.resize, d.crop_pct, d.interpolation, tuple(mean), tuple(std), d.grey_range)

    @classmethod
    def of_timm(cls, model: nn.Module) -> "Preprocessing":
        """What timm's evaluation transform does for a model, by its `pretrained_cfg`."""
        known: Mapping[str, Any] = stated(model)
        bilinear = known.get("interpolation") == Interpolation.bilinear.value
        return cls(
            size=input_size(model),
            resize=Resize.direct if known.get("crop_mode") == "squash" else Resize.crop,
            crop_pct=known.get("crop_pct") or CROP_PCT,
            interpolation=Interpolation.bilinear if bilinear else Interpolation.bicubic,
            mean=tuple(known["mean"]),
            std=tuple(known["std"]),
        )
