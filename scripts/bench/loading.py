"""Time an epoch over JPEG files: the DataLoader of the published scripts, and pear's ways to keep images.

The files are generated, 500×375 pixels, in a folder that is removed at the end; the input is 224×224 and
batches have 64 images. The DataLoader is ImageFolder with Resize, ToTensor and Normalize. Only reading is
timed: no model. Repetitions alternate between the ways; medians are printed.

    python scripts/bench/loading.py [--images 1000] [--epochs 3] [--repeats 3]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from pear_cli.config.choices import Caching
from pear_cli.data.folder import ImageFolder
from pear_cli.data.loading import load
from pear_cli.data.preparation import Preparation
from pear_cli.training.batches import Batches

SIZE, BATCH = 224, 64
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
Epoch = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3, help="of each way and repetition, at least 2")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    first: dict[str, list[float]] = {}
    later: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.images)
        for _ in range(options.repeats):
            for name, seconds in measure(Path(folder), options.epochs):
                first.setdefault(name, []).append(seconds[0])
                later.setdefault(name, []).append(statistics.median(seconds[1:]))
    print(f"{options.images} images, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    print(f"{'':28}{'first epoch':>14}{'later epochs':>14}")
    for name in first:
        one, more = statistics.median(first[name]), statistics.median(later[name])
        print(f"{name:28}{one:12.2f} s{more:12.2f} s")


def write(folder: Path, count: int) -> None:
    """Smooth pictures with some noise: their files have the size of photos, about 60 kB."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:375, :500] / 100
    for index in range(count):
        place = folder / "train" / f"class{index % 10}" / f"{index}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        a, b, phase = random.uniform(1, 6, 3)
        waves = [127 + 90 * np.sin(a * x + b * y + phase + channel) for channel in range(3)]
        pixels = np.stack(waves, -1) + random.normal(0, 12, (375, 500, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place, quality=90)


def measure(folder: Path, epochs: int) -> Iterator[tuple[str, list[float]]]:
    """Each way, and the seconds of its epochs; what is prepared before the first one counts to it."""
    for workers in (0, 1, 2):
        yield f"DataLoader, {workers} workers", timed(lambda w=workers: published(folder, w), epochs)
    os.environ["PEAR_CACHE"] = str(folder / "cache")
    for name, caching, workers in (
        ("pear, ram", Caching.ram, 0),
        ("pear, disk, built", Caching.disk, 0),
        ("pear, disk, a second run", Caching.disk, 0),
        ("pear, none, threads", Caching.none, 0),
        ("pear, none, 2 workers", Caching.none, 2),
    ):
        yield name, timed(lambda c=caching, w=workers: ours(folder, c, w), epochs)
    for file in (folder / "cache").rglob("*"):
        if file.is_file():
            file.unlink()


def timed(start: Callable[[], Epoch], epochs: int) -> list[float]:
    began, seconds = time.perf_counter(), []
    epoch = start()
    for _ in range(epochs):
        epoch()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def published(folder: Path, workers: int) -> Epoch:
    steps = [transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    images = datasets.ImageFolder(str(folder / "train"), transform)
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers)
    return lambda: consume(iter(loader))


def ours(folder: Path, caching: Caching, workers: int) -> Epoch:
    dataset = replace(ImageFolder("photos", root=str(folder)), cache=caching)
    split = load(dataset, "train800val200", Preparation(SIZE), workers)
    batches = Batches(split, (MEAN, STD), torch.device("cpu"))
    return lambda: consume(batches.each(torch.split(torch.randperm(len(batches)), BATCH)))


def consume(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for x, _ in batches:
        assert x.shape[1:] == (3, SIZE, SIZE)


if __name__ == "__main__":
    main()
