"""Generated pictures of figures whose number, direction or place is the class: tasks about structure."""

import functools
import io
import platform
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL

from pear_cli.data.condition import Holding, say_once
from pear_cli.data.drawing import TASKS, generate
from pear_cli.data.images import Labels, Pixels
from pear_cli.data.pinned import Part, Pinned, sha256
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import progress

SAMPLE = 16
SAMPLES = {
    "shapes_count": "8c3315584012e9d6a3833570422b916822fac52948d4840fb1fcf6f72206b2c4",
    "shapes_orientation": "3af5bada93c711786ada67940c03d0df82891d903db7f3c54dd65087721ecb96",
    "shapes_location": "f6879e83c8c4865731c68730be9841476ba2919775ba1885d5219b84b8204bc4",
}
"""`sha256` of the first `SAMPLE` training images of each task."""


@dataclass(frozen=True)
class Shapes(Pinned):
    """Polygons on a ground of changing colours, with noise: 1000 training and 5000 test images of 32 × 32.

    `shapes_count` (8 classes), `shapes_orientation` (16) and `shapes_location` (16) follow the structured
    group of VTAB in what they ask, not in their pictures. Every picture has a random stream of its own,
    from (task, part, index), and the classes are balanced to within one image.

    Where another numpy, Pillow or C library draws other pixels, they are another dataset: its fingerprint is
    of the pixels that are drawn there, and a line on stderr says so.

    Source: the tasks are after Zhai et al. 2019, arXiv 1910.04867, section 3; the pictures are ours.
    """

    KIND: ClassVar = "generated"
    TABLE: ClassVar = {
        "shapes_count": {
            "train": Part(1000, "679082dce29bb03be5f428e1692f14afe8dce391d7d4ddd5c0b3ea0b1efd48b7"),
            "test": Part(5000, "7e23b8275f29d332a6d0449fa4c9cb25af529fe1d6febf5565087cbce768b05a"),
        },
        "shapes_orientation": {
            "train": Part(1000, "30aa40655d1d49173b03399e0d009f9c96b32a7bb6870da9de4801956793f9d2"),
            "test": Part(5000, "15686e21f042ce708b746c01af3284b77b141032186563c1bec9cb2f96f96b5d"),
        },
        "shapes_location": {
            "train": Part(1000, "5227f3d11a17f05a68c1a6b6377021ab68d65270bceb54b52bf6dae4d0e47289"),
            "test": Part(5000, "b9f1ba59e50e9004c46548c17dfc2d383ab1ff54d594ca1e33c2040b0cc7014c"),
        },
    }

    def classes(self) -> tuple[str, ...]:
        return TASKS[self.name].classes

    def holding(self) -> Holding:
        return Holding(None, "generated")

    def content(self, part: str) -> str:
        known = self.TABLE[self.name][part]
        drawn = _content(cache.folder(), self.name, part, known)
        if drawn != known.sha256:
            self._warn()
        return drawn

    def arrays(self, part: str) -> tuple[Pixels, Labels]:
        """The pictures from the cache; what lies there with another hash, or broken, is drawn again."""
        known, expected = self.TABLE[self.name][part], self.content(part)
        title, kept = f"{self.name} ({part})", cache.place("arrays", expected, "npz")
        if kept.exists():
            with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                with np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as stored:
                    pixels, labels = stored["pixels"], stored["labels"]
                if sha256(pixels, labels) == expected:
                    return pixels, labels
            progress.say(f"{kept} is damaged or does not hold the images of {title}; they are made again")
        pixels, labels = generate(self.name, part, known.images)
        found, buffer = sha256(pixels, labels), io.BytesIO()
        np.savez(buffer, pixels=pixels, labels=labels)
        cache.write(cache.place("arrays", found, "npz"), buffer.getvalue())
        if found != expected:
            cache.remember(_record(self.name, part, known.sha256), {"sha256": found})
            raise DataError(
                f"{title} is drawn here with SHA-256 {found}, not {expected}, which its keys were made with "
                f"({_versions()})",
                "run again: from now on its keys are those of what is drawn here",
            )
        return pixels, labels

    def _warn(self) -> None:
        """Say once which of its parts are drawn differently here."""
        known = self.TABLE[self.name].items()
        parts = {part: (_content(cache.folder(), self.name, part, pinned), pinned) for part, pinned in known}
        differing = [
            f"SHA-256 of {part} {drawn[:16]}… instead of {pinned.sha256[:16]}…"
            for part, (drawn, pinned) in parts.items()
            if drawn != pinned.sha256
        ]
        say_once(
            f"{self.name} is drawn differently here: {', '.join(differing)} ({_versions()}); "
            "it is another dataset, with keys of its own"
        )


@functools.cache
def _content(folder: Path, name: str, part: str, known: Part) -> str:
    """SHA-256 of a part as this machine draws it; the same for the life of a process, as its keys are.

    A sample decides whether the pinned one can be trusted; when the part is read, all of it is compared.

    Args:
        folder: of the cache.
    """
    record = _record(name, part, known.sha256)
    drawn = cache.recall(record).get("sha256")
    if drawn is None:
        if sha256(*generate(name, "train", SAMPLE)) == SAMPLES[name]:
            return known.sha256
        drawn = sha256(*generate(name, part, known.images))
        cache.remember(record, {"sha256": drawn})
    return str(drawn)


def _record(name: str, part: str, pinned: str) -> str:
    """The key under which is remembered what these versions draw, where it is not what is pinned."""
    return f"{name} {part} {pinned} as drawn by {_versions()}"


def _versions() -> str:
    """All that the pixels could depend on."""
    libc = " ".join(platform.libc_ver()).strip() or platform.platform()
    return f"numpy {np.__version__}, Pillow {PIL.__version__}, {platform.machine()}, {libc}"
