"""Two small handwriting datasets that come with the package, so that pear runs without a download."""

import hashlib
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np

from pear_cli.data.dataset import Dataset
from pear_cli.data.images import Drawn
from pear_cli.data.splits import digest, divide, draw
from pear_cli.errors import ConfigError, DataError, near

TRAIN_IMAGES = 1000
TRAIN_SEED = 0  # which 1000 images train: never varied, so the test set is the same for everybody


@dataclass(frozen=True)
class File:
    """One file of the folder `files`: its checksum, and the factor that takes its values to 0-255."""

    sha256: str
    gain: int


FILES = {
    "digits": File("82393b63ff69dea89fa95eeef924870ebc186df1f35d7c46a617cb6112d8f2bc", gain=16),
    "mnist5k": File("7d0d68bbe60518cc553d4709f02ab410c7e987cd2eb06ff0cc4b5a34a026f3a1", gain=1),
}


@dataclass(frozen=True)
class Bundled(Dataset):
    """Handwritten digits: 1000 training images, the others are the test set.

    `digits` has 1797 images of 8×8 pixels with 17 grey levels (scaled by 16 and clipped at 255), 797 of
    them in the test set; `mnist5k` has 5000 of 28×28 with 256 levels, 4000 in the test set.

    Raises:
        ConfigError: a name that is neither.
        DataError: a file that is missing from the package, or altered.

    Source: files/README.md.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in FILES:
            raise ConfigError(
                f'no bundled dataset "{self.name}"{near(self.name, FILES)}; bundled: {", ".join(FILES)}'
            )

    def classes(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def fingerprint(self, split: str) -> str:
        return digest(
            family="bundled",
            sha256=hashlib.sha256(self._bytes()).hexdigest(),
            train=[TRAIN_IMAGES, TRAIN_SEED],
            split=split,
            split_seed=self.split_seed,
        )

    def records(self, split: str) -> Drawn:
        content = self._bytes()
        if hashlib.sha256(content).hexdigest() != FILES[self.name].sha256:
            raise DataError(f"the packaged {self.name}.npz is not the one of this release; reinstall pear")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            pixels, labels = stored["pixels"], stored["labels"].astype(np.int64)
        train, test = draw(labels, TRAIN_IMAGES, TRAIN_SEED)
        chosen = test if split == "test" else train[divide(labels[train], split, self.split_seed)]
        levels = pixels[chosen].astype(np.int64) * FILES[self.name].gain
        return Drawn(levels.clip(0, 255).astype(np.uint8), labels[chosen])

    def _bytes(self) -> bytes:
        try:
            return (resources.files("pear_cli.data") / "files" / f"{self.name}.npz").read_bytes()
        except OSError as error:
            raise DataError(f"the packaged {self.name}.npz cannot be read: {error}; reinstall pear") from None
