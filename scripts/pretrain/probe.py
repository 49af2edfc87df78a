"""What the bundled backbone is worth: logistic regression on its frozen class token, on the bundled tasks.

    pip install scikit-learn && python scripts/pretrain/probe.py

A task's 1000 training images are those of `dataset=<task>`; the regularisation is chosen on a fifth of them,
and the test set is read once. Random weights are of seed 0. Cells go to docs/results/probe.json, from where
`python scripts/tables/render.py` puts them into the model card.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from images import SIZE
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from student import ARCHITECTURE, MEAN, NAME, STD
from torch import nn

from pear_cli.data.dataset import Dataset
from pear_cli.data.decoding import held

sys.path.append(str(Path(__file__).parents[1] / "tables"))
from cells import DIGITS, Cells, bundled, fresh, made_with
from methods import TASKS

WEIGHTS = Path(__file__).parents[2] / "pear_cli" / "weights" / "pear_mini.safetensors"
SPLITS = ("train800val200", "test")


def main() -> None:
    cells = Cells("probe")
    torch.manual_seed(0)
    backbones = {
        "random weights": timm.create_model(NAME, **ARCHITECTURE),
        "pear_mini": timm.create_model(NAME, **ARCHITECTURE, checkpoint_path=str(WEIGHTS)),
    }
    with fresh():
        for task in TASKS:
            dataset = bundled(task)
            for name, backbone in backbones.items():
                (x, y), (test_x, test_y) = (tokens(backbone, dataset, split) for split in SPLITS)
                accuracy = score(x, y, test_x, test_y)
                print(f"{task:20} {name:15} {100 * accuracy:.2f}")
                data = {split: dataset.fingerprint(split)[:DIGITS] for split in SPLITS}
                record = {"cell": {"task": task, "weights": name}, "accuracy": accuracy, "data": data}
                cells.add([record | made_with(torch.get_num_threads())])


def score(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """Test accuracy of the regression with the best of four regularisations."""

    def fitted(rows: np.ndarray, c: float) -> Pipeline:
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x[rows], y[rows])

    rows = np.random.default_rng(0).permutation(len(x))
    first, held_out = np.split(rows, [len(x) * 4 // 5])
    best = max((0.001, 0.01, 0.1, 1.0), key=lambda c: fitted(first, c).score(x[held_out], y[held_out]))
    return float(fitted(rows, best).score(test_x, test_y))


@torch.inference_mode()
def tokens(backbone: nn.Module, dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """N, 128 and N: the class tokens of a split, and its labels."""
    images = held(dataset.records(split), dataset.preparation(SIZE), dataset.classes())
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255  # N, H, W, 3 -> N, 3, H, W
    chunks = ((pixels - MEAN) / STD).split(500)
    return torch.cat([backbone.eval()(chunk) for chunk in chunks]).numpy(), images.labels


if __name__ == "__main__":
    main()
