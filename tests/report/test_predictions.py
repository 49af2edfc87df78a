import numpy as np
import pytest

from pear_cli.errors import CorruptArtifact
from pear_cli.report.analysis.predictions import Predictions, confused


def of(probabilities, labels):
    return Predictions(np.log(np.array(probabilities)), np.array(labels))


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    # Two images of confidence 0.6, one right: |0.5 - 0.6|; two of 0.9, both right: |1 - 0.9|.
    found = of([[0.6, 0.4]] * 2 + [[0.9, 0.1]] * 2, [0, 1, 0, 0]).calibration()
    assert found.error == pytest.approx(0.1)
    assert [one.images for one in found.bins if one.images] == [2, 2]


def test_a_sure_and_right_model_is_calibrated():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert Predictions(logits, np.array([0, 1])).calibration().error == 0.0


def test_confusion_has_the_true_class_in_rows():
    counts = of([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1]).confusion()
    assert counts == [[1, 0], [1, 1]]
    assert confused(counts, 5) == [(1, 0, 1)]


def test_predictions_are_read_without_torch_and_agree_with_the_metrics(finished):
    evaluated = finished.made["eval"]
    found = Predictions.from_artifact(evaluated)
    assert found.right.mean() == pytest.approx(evaluated.manifest["metrics"]["accuracy"])


def test_predictions_with_other_tensors_are_refused(fake):
    with fake.store.draft("eval", "0" * 32) as draft:
        import torch

        draft.save_tensors("predictions", {"logits": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 5])})
        made = draft.publish(inputs={}, config={}, metrics={}, accounting={}, seconds=1.0, environment={})
    with pytest.raises(CorruptArtifact, match="disagree"):
        Predictions.from_artifact(made)
