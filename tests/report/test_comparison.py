import dataclasses
import math
import shutil

import pytest

from pear_cli.errors import ConfigError
from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.fields import fields
from pear_cli.report.analysis.listing import Row, row, rows
from pear_cli.report.analysis.protocol import differences, in_words

T2 = 4.302652729749462  # the 0.975 quantile of t with two degrees of freedom


def lines_of(fake, *filters, baseline=()):
    return compare(rows(fake.store, list(filters)), baseline)


def by_model(lines):
    return {line.model: line for line in lines}


def test_differences_are_paired_by_seed(fake):
    for seed, (dense, shared) in enumerate([(0.90, 0.92), (0.80, 0.83), (0.70, 0.71)]):
        fake.experiment(seed=seed, ratio=0, rule="none", kind="none", accuracy=dense)
        fake.experiment(seed=seed, kind="none", accuracy=shared)
    lines = by_model(lines_of(fake))
    assert lines["dense"].is_baseline
    assert lines["dense"].difference is None
    difference = lines["prune + share, 50%"].difference
    assert (difference.mean, difference.count) == (pytest.approx(0.02), 3)
    assert difference.half == pytest.approx(T2 * 0.01 / math.sqrt(3))
    assert lines["prune + share, 50%"].accuracy.half > 10 * difference.half


def test_seeds_that_only_one_of_two_has_make_no_pair(fake):
    for seed in (0, 1):
        fake.experiment(seed=seed, ratio=0, rule="none", kind="none", accuracy=0.9)
    for seed in (1, 2):
        fake.experiment(seed=seed, accuracy=0.8)
    shared = by_model(lines_of(fake))["prune + share + knowledge, 50%"]
    assert (shared.difference.mean, shared.difference.count) == (pytest.approx(-0.1), 1)
    assert shared.difference.half is None


def test_the_dense_model_of_equal_budget_comes_before_the_one_without_adaptation(fake):
    fake.experiment(dense_only=True, accuracy=0.7)
    fake.experiment(ratio=0, rule="none", kind="none", accuracy=0.9)
    fake.experiment(accuracy=0.8)
    lines = by_model(lines_of(fake))
    assert lines["prune + share + knowledge, 50%"].difference.mean == pytest.approx(-0.1)
    assert lines["dense, before pruning"].difference.mean == pytest.approx(-0.2)


def test_the_baseline_can_be_chosen_by_filters(fake):
    fake.experiment(kind="none", rule="none", accuracy=0.7)
    fake.experiment(accuracy=0.8)
    lines = by_model(lines_of(fake, baseline=["knowledge=none", "share=none"]))
    assert lines["prune + share + knowledge, 50%"].difference.mean == pytest.approx(0.1)
    assert lines["prune only, 50%"].is_baseline


def test_a_baseline_that_nothing_matches_is_an_error(fake):
    fake.experiment()
    with pytest.raises(ConfigError, match="no evaluation here matches share=none"):
        lines_of(fake, baseline=["share=none"])
    with pytest.raises(ConfigError, match='did you mean "share"'):
        lines_of(fake, baseline=["shar=none"])


def test_a_model_is_called_by_what_tells_it_from_its_namesakes_and_no_more(fake):
    fake.experiment(ratio=0.25)
    fake.experiment(ratio=0.5)
    fake.experiment(ratio=0.5, rule="top")
    names = {line.model for line in lines_of(fake)}
    told = ("rule ranked, 25%", "rule ranked, 50%", "rule top, 50%")
    assert names == {f"prune + share + knowledge, {words}" for words in told}
    assert {line.series for line in lines_of(fake)} == {name.rpartition(",")[0] for name in names}


def test_models_that_differ_in_their_weights_alone_have_different_names(fake):
    fake.experiment(weights="a" * 64)
    fake.experiment(weights="b" * 64)
    assert len({line.model for line in lines_of(fake)}) == 2


def test_what_differs_in_protocol_is_not_comparable(fake):
    fake.experiment(ratio=0, rule="none", kind="none")
    fake.experiment(normalization="half", weights="b" * 64)
    dense, other = lines_of(fake)
    assert dense.incomparable == ""
    weights = "frozen weights (aaaaaaaa, bbbbbbbb)"
    assert other.incomparable == f"dataset.normalization (backbone, half); {weights}"


def test_a_lost_input_is_no_difference_in_protocol():
    assert differences([{"select": "last", "seed": "0"}, {"seed": "0"}]) == {}
    assert in_words(differences([{"select": "last"}, {"select": "val"}])) == "select (last, val)"


def test_what_lost_its_inputs_is_unknown_and_has_no_difference(fake):
    fake.experiment(ratio=0, rule="none", kind="none", accuracy=0.9)
    fake.experiment(dense_only=True, accuracy=0.7)
    lost = fake.experiment(accuracy=0.8)
    shutil.rmtree(lost["adapt"].path)
    line = next(line for line in lines_of(fake) if "unknown" in line.model)
    assert line.model == "unknown (inputs are lost)"
    assert (line.baseline, line.difference) == (None, None)


def test_nothing_is_subtracted_from_results_on_other_images(fake):
    fake.experiment(ratio=0.0, rule="none", kind="none", accuracy=0.8)
    made = fake.experiment(accuracy=0.9)["eval"]
    lines = compare(rows(fake.store))
    assert [line.difference is not None for line in lines if not line.is_baseline] == [True]
    altered = [replaced(one, made.key) for one in rows(fake.store)]
    lines = compare(altered)
    assert [line.difference for line in lines if not line.is_baseline] == [None]
    assert [text for line in lines if (text := shown(line)) != "baseline"] == ["≠ other images"]


def replaced(one, key):
    """The row, as if it had been evaluated on other images where its key is this one."""
    if one.artifact.key != key:
        return one
    environment = {**one.artifact.manifest["environment"], "data": {"train800val200": "e" * 64}}
    manifest = {**one.artifact.manifest, "environment": environment}
    artifact = dataclasses.replace(one.artifact, manifest=manifest)
    return Row(dataclasses.replace(one.lineage, artifact=artifact))


def shown(line):
    return next(field.text(line) for field in fields([line]) if field.name == "difference")


def test_a_single_seed_leaves_two_standard_errors_open(fake):
    made = fake.experiment(accuracy=0.9)
    (line,) = compare([row(made["eval"], fake.store)])
    images = line.images
    assert line.noise == pytest.approx(2 * (0.9 * 0.1 / images) ** 0.5)


def test_rows_stand_in_the_order_of_the_pipeline(fake):
    for rule, kind in (("ranked", "frozen"), ("ranked", "none"), ("none", "none")):
        fake.experiment(rule=rule, kind=kind)
    fake.experiment(ratio=0.0, rule="none", kind="none")
    labels = [line.first.lineage.label for line in compare(rows(fake.store))]
    assert labels == ["dense", "prune only", "prune + share", "prune + share + knowledge"]
