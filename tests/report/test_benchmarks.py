import pytest

from pear_cli.data.vtab import TASKS as VTAB
from pear_cli.report.analysis.benchmark import named
from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.listing import rows
from pear_cli.report.page.benchmarks import benchmarks

ACCURACY = {"Natural": 0.8, "Specialized": 0.9, "Structured": 0.5}


def vtab(fake, leave_out=()):
    known = benchmarks([])
    assert known == []
    for group, tasks in named("vtab1k").groups.items():
        for task in tasks:
            if task not in leave_out:
                for seed in (0, 1):
                    fake.experiment("vtab", task=task, seed=seed, dense_only=True, accuracy=ACCURACY[group])
    return benchmarks(compare(rows(fake.store, ["stage=eval"])))


def test_both_averages_of_vtab(fake):
    (found,) = vtab(fake)
    (model,) = found.models
    assert set(model.tasks) == set(VTAB)
    assert model.of_groups.mean == pytest.approx((0.8 + 0.9 + 0.5) / 3)
    assert model.of_tasks.mean == pytest.approx((7 * 0.8 + 4 * 0.9 + 8 * 0.5) / 19)
    assert (model.of_tasks.count, model.of_tasks.half) == (2, pytest.approx(0))


def test_an_average_of_a_part_is_no_average(fake):
    (found,) = vtab(fake, leave_out=("kitti",))
    (model,) = found.models
    assert model.of_group("Natural").mean == pytest.approx(0.8)
    assert model.of_group("Structured") is model.of_groups is model.of_tasks is None


def test_published_numbers_have_a_source_and_agree_with_their_groups(fake):
    (found,) = vtab(fake)
    for one in found.about.published:
        assert one.source
        if one.groups:
            assert sum(one.groups) / 3 == pytest.approx(one.average, abs=0.1)  # groups are rounded


def test_tasks_with_settings_of_their_own_are_no_one_model(fake):
    fake.experiment("vtab", task="dtd", dense_only=True, accuracy=0.7)
    fake.experiment("vtab", task="svhn", dense_only=True, accuracy=0.8, normalization="imagenet")
    (found,) = benchmarks(compare(rows(fake.store, ["stage=eval"])))
    assert [set(model.tasks) for model in found.models] in ([{"dtd"}, {"svhn"}], [{"svhn"}, {"dtd"}])
    assert len({model.name for model in found.models}) == 2
