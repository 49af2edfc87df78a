"""What training does to a batch: augmentation of its pixels, and mixup.

All choices are drawn for each image, on the CPU, from a seed of their own: what an epoch does to its images
depends on that seed alone.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pear_cli.config.choices import Augment
from pear_cli.system.team import Part

Augmentation = Callable[[Tensor, Part], Tensor]
"""Changes pixels (B, 3, H, W), uint8, which are a part of a batch; what is drawn is drawn for all of it."""

PAD = 8  # a crop moves by up to size / PAD in each direction: the 4 pixels of 32 that CIFAR's scripts use
LAYERS, PROBABILITY, MAGNITUDE = 2, 0.5, 0.9  # timm's rand-m9-n2, without the noise of its magnitude
FILL = [128.0, 128.0, 128.0]


def augmentation(kind: Augment, seed: int) -> Augmentation | None:
    """The augmentation of one epoch.

    `flip_crop` mirrors every other image, and moves each by up to an eighth of its side, its edge reflected.
    `randaugment` does so, then applies two of timm's 15 operations to each image, drawn with replacement,
    each with probability 1/2 and at magnitude 9 of 10.

    Args:
        seed: of the epoch.

    Source: Cubuk et al. 2019, arXiv 1909.13719, in the form of timm's `rand-m9-inc1`.
    """
    if kind is Augment.none:
        return None
    draw = torch.Generator().manual_seed(seed)
    if kind is Augment.flip_crop:
        return lambda pixels, part: flip_crop(pixels, part, draw)
    return lambda pixels, part: rand_augment(flip_crop(pixels, part, draw), part, draw)


def flip_crop(pixels: Tensor, part: Part, draw: torch.Generator) -> Tensor:
    """Mirror and move each image (B, 3, H, W) on its own."""
    _, _, height, width = pixels.shape
    flipped = torch.rand(part.whole, generator=draw)[part.places] < 0.5
    rows, columns = (
        _reflect(
            torch.arange(side)
            + torch.randint(-(side // PAD), side // PAD + 1, (part.whole, 1), generator=draw)[part.places],
            side,
        )
        for side in (height, width)
    )
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    # Image by image, channels last: on a CPU a seventh of the time of one gather for the batch.
    images = pixels.permute(0, 2, 3, 1)  # B, 3, H, W -> B, H, W, 3
    moved = [x.index_select(0, r).index_select(1, c) for x, r, c in zip(images, rows, columns, strict=True)]
    return torch.stack(moved).permute(0, 3, 1, 2)


def _reflect(index: Tensor, side: int) -> Tensor:
    """Indices past an edge come back from it, the edge itself not repeated."""
    return (side - 1) - ((side - 1) - index.abs()).abs()


def rand_augment(pixels: Tensor, part: Part, draw: torch.Generator) -> Tensor:
    """Apply operations to each image (B, 3, H, W); images that drew the same one go together."""
    known = operations(pixels.shape[-1])
    pixels = pixels.contiguous()
    for _ in range(LAYERS):
        chosen = torch.randint(len(known), (part.whole,), generator=draw)[part.places]
        applied = torch.rand(part.whole, generator=draw)[part.places] < PROBABILITY
        sign = torch.randint(2, (part.whole,), generator=draw)[part.places] * 2 - 1
        for number, operation in enumerate(known.values()):
            for direction in (-1, 1):
                drew = torch.nonzero((chosen == number) & applied & (sign == direction)).flatten()
                if len(drew):
                    there = drew.to(pixels.device)
                    pixels[there] = operation(pixels[there], direction)
    return pixels


def operations(side: int, magnitude: float = MAGNITUDE) -> Mapping[str, Callable[[Tensor, int], Tensor]]:
    """timm's operations of increasing severity, by its names: pixels and a sign in, pixels out.

    Args:
        side: of the images, in pixels.
        magnitude: in [0, 1].
    """
    linear: Any = {"interpolation": InterpolationMode.BILINEAR, "fill": FILL}

    def affine(x: Tensor, shear: tuple[float, float] = (0, 0), move: tuple[float, float] = (0, 0)) -> Tensor:
        degrees = [math.degrees(math.atan(value)) for value in shear]
        center = [0.0, 0.0]  # as Pillow's transform has it
        moved: Tensor = F.affine(x, 0.0, list(move), 1.0, degrees, center=center, **linear)
        return moved

    def factor(sign: int) -> float:
        return max(0.1, 1 + sign * 0.9 * magnitude)

    threshold, added = 256 - min(256, int(256 * magnitude)), min(128, int(110 * magnitude))
    shear, move = 0.3 * magnitude, 0.45 * magnitude * side
    return {
        "AutoContrast": lambda x, sign: F.autocontrast(x),
        "Equalize": lambda x, sign: F.equalize(x),
        "Invert": lambda x, sign: F.invert(x),
        "Rotate": lambda x, sign: F.rotate(x, sign * 30 * magnitude, **linear),
        "PosterizeIncreasing": lambda x, sign: F.posterize(x, 4 - int(4 * magnitude)),
        "SolarizeIncreasing": lambda x, sign: F.solarize(x, threshold),
        "SolarizeAdd": lambda x, sign: torch.where(x < 128, (x.int() + added).clamp(max=255).to(x.dtype), x),
        "ColorIncreasing": lambda x, sign: F.adjust_saturation(x, factor(sign)),
        "ContrastIncreasing": lambda x, sign: F.adjust_contrast(x, factor(sign)),
        "BrightnessIncreasing": lambda x, sign: F.adjust_brightness(x, factor(sign)),
        "SharpnessIncreasing": lambda x, sign: F.adjust_sharpness(x, factor(sign)),
        "ShearX": lambda x, sign: affine(x, shear=(sign * shear, 0)),
        "ShearY": lambda x, sign: affine(x, shear=(0, sign * shear)),
        "TranslateXRel": lambda x, sign: affine(x, move=(-sign * move, 0)),
        "TranslateYRel": lambda x, sign: affine(x, move=(0, -sign * move)),
    }


class Mixup:
    """Mix each image of a batch with its counterpart from the other end.

        x = w·x + (1 - w)·reversed x,  w the larger of λ and 1 - λ, λ ~ Beta(α, α), one a batch

    Mixing with λ or with 1 - λ makes the same images in reversed order; so the first label is the one that
    weighs more.

    Args:
        alpha: α, at least 0; 0 mixes nothing.
        seed: of the epoch.

    Source: Zhang et al. 2017, arXiv 1710.09412, in the form of timm's `Mixup(mode="batch")`.
    """

    def __init__(self, alpha: float, seed: int) -> None:
        self.alpha, self.draw = alpha, np.random.Generator(np.random.PCG64(seed))

    def __call__(self, x: Tensor, other: Tensor) -> tuple[Tensor, float]:
        """Mixed images (B, 3, H, W), and the weight in [0.5, 1] of the first labels.

        Args:
            x: images.
            other: the counterpart of each.
        """
        if self.alpha == 0:
            return x, 1.0
        share = float(self.draw.beta(self.alpha, self.alpha))
        weight = max(share, 1 - share)
        return weight * x + (1 - weight) * other, weight
