import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from pear_cli.report import spelling
from pear_cli.report.analysis.difference import Agreement, between
from pear_cli.report.analysis.predictions import Predictions
from pear_cli.report.terminal.diff import print_difference


def test_what_differs_is_said_and_nothing_else(fake, lines_of):
    one, two = fake.experiment(accuracy=0.9), fake.experiment(ratio=0.75, accuracy=0.8)
    found = between(one["eval"], two["eval"], fake.store)
    assert found.settings == {"prune.ratio": (0.5, 0.75)}
    assert found.measured["accuracy"] == (0.9, 0.8)
    assert found.measured.keys() == {"accuracy", "mean_per_class_accuracy"}
    assert found.environment == {}
    assert found.apart == ""
    lines = lines_of(print_difference, found)
    assert any(line.split() == ["prune.ratio", "0.5", "0.75"] for line in lines)
    assert any(line.split() == ["accuracy", "0.9", "0.8", "-0.1"] for line in lines)


def test_a_difference_in_protocol_is_a_note(fake, lines_of):
    one, two = fake.experiment(), fake.experiment(normalization="half")
    lines = lines_of(print_difference, between(one["eval"], two["eval"], fake.store))
    assert lines[-1] == "note: not comparable, they differ in dataset.normalization (backbone, half)"


def test_agreement_on_the_same_images_is_tested_exactly(finished, monkeypatch):
    evaluated = finished.made["eval"]
    labels = np.zeros(10, dtype=np.int64)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    answers = iter([[right] * 9 + [wrong], [right] * 3 + [wrong] * 6 + [right]])
    monkeypatch.setattr(Predictions, "from_artifact", lambda _: Predictions(np.array(next(answers)), labels))
    found = between(evaluated, evaluated, finished.store).agreement
    assert found == Agreement(3, 6, 1, 0, pytest.approx(binomtest(6, 7).pvalue))


def test_diff_takes_two_artifacts_and_prints_json(pear, finished):
    key, other = finished.made["eval"].key, finished.made["adapt"].key
    said = pear("report", "diff", key[:12], other[:12], "--json", "--store", str(finished.store.root))
    assert said.code == 0
    assert json.loads(said.out)["artifacts"] == [f"eval/{key}", f"adapt/{other}"]
    assert pear("report", "diff", key).code == 2


def test_equal_numbers_round_alike_and_counts_are_in_groups(fake, lines_of):
    assert spelling.number(0.92575) == spelling.number(0.9257500000000001) == "0.9258"
    one, two = fake.experiment(accuracy=0.92575), fake.experiment(accuracy=0.8)
    found = replace(between(one["eval"], two["eval"], fake.store), measured={"stored_bytes": (104448, 4448)})
    lines = lines_of(print_difference, found)
    assert any("104 448" in line and "4 448" in line and "-100 000" in line for line in lines)


def test_results_on_other_images_are_shown_beside_each_other_without_a_difference(fake, lines_of):
    one, two = fake.experiment(accuracy=0.9), fake.experiment(accuracy=0.8)
    found = between(one["eval"], two["eval"], fake.store)
    assert not found.of_other_images
    assert any("accuracy" in line and "-0.1" in line for line in lines_of(print_difference, found))
    lines = lines_of(print_difference, replace(found, of_other_images=True))
    assert any(line.split() == ["accuracy", "0.9", "0.8"] for line in lines)
