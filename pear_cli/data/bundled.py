"""Two small handwriting datasets that come with the package, so that pear runs without a download."""

import hashlib
import io
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import numpy as np

from pear_cli.data.images import Labels, Pixels
from pear_cli.data.pinned import Part, Pinned, sha256
from pear_cli.data.splits import draw
from pear_cli.errors import DataError

TRAIN_SEED = 0  # which images train: never varied, so the test set is the same for everybody


FILES = {
    "digits": ("82393b63ff69dea89fa95eeef924870ebc186df1f35d7c46a617cb6112d8f2bc", 16),
    "mnist5k": ("7d0d68bbe60518cc553d4709f02ab410c7e987cd2eb06ff0cc4b5a34a026f3a1", 1),
}
"""The files of the folder `files`: SHA-256, and the factor that takes the values to 0-255."""


@dataclass(frozen=True)
class Bundled(Pinned):
    """Handwritten digits: 1000 training images, the others are the test set.

    `digits` has 1797 images of 8×8 pixels with 17 grey levels (scaled by 16 and clipped at 255), 797 of
    them in the test set; `mnist5k` has 5000 of 28×28 with 256 levels, 4000 in the test set.

    Raises:
        DataError: a file that is missing from the package, or altered.

    Source: files/README.md.
    """

    KIND: ClassVar = "bundled"
    TABLE: ClassVar = {
        "digits": {
            "train": Part(1000, "9b74b83bfdd2237c6b1e1372d2d85f184b17a382ec66ac15815507cebd1dacaf"),
            "test": Part(797, "a3166d4b54f10a994450b311832cd74ec819db1d430cea47df9b9a203a9eab31"),
        },
        "mnist5k": {
            "train": Part(1000, "896d531a4b9ed5a64367f85f8ac985191639e00a4e610d9bd82737e753c6d858"),
            "test": Part(4000, "f9225a34a6e61b4b7342ee5f7d82531b41a02e9a9b9dd99e26029b556a910ec5"),
        },
    }

    def classes(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def arrays(self, part: str) -> tuple[Pixels, Labels]:
        try:
            content = (resources.files("pear_cli.data") / "files" / f"{self.name}.npz").read_bytes()
        except OSError as error:
            raise DataError(f"the packaged {self.name}.npz cannot be read: {error}; reinstall pear") from None
        checksum, gain = FILES[self.name]
        if hashlib.sha256(content).hexdigest() == checksum:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                pixels, labels = stored["pixels"].astype(np.int64), stored["labels"].astype(np.int64)
            train, test = draw(labels, self.TABLE[self.name]["train"].images, TRAIN_SEED)
            chosen = test if part == "test" else train
            levels = (pixels[chosen] * gain).clip(0, 255).astype(np.uint8)
            if sha256(levels, labels[chosen]) == self.content(part):
                return levels, labels[chosen]
        raise DataError(f"the packaged {self.name}.npz is not the one of this release; reinstall pear")
