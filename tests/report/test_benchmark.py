"""Averages over the tasks of VTAB-1k: which rows count, and what is said of those that do not."""

import statistics

import pytest
from omegaconf import OmegaConf

from pear_cli.config.presets import config_dir
from pear_cli.data.vtab import TASKS
from pear_cli.errors import ConfigError
from pear_cli.report.analysis import benchmark
from pear_cli.report.analysis.benchmark import models, standings
from pear_cli.report.analysis.comparison import compare
from pear_cli.report.analysis.estimate import Estimate
from pear_cli.report.analysis.listing import rows
from pear_cli.report.terminal.standings import print_averages, print_benchmark

VTAB1K = benchmark.named("vtab1k")


@pytest.fixture
def evaluated(fake):
    """Evaluate tasks with seeds; the accuracy is made of their places, so that every mean is known."""

    def make(tasks=VTAB1K.tasks, seeds=(0,), **given):
        for seed in seeds:
            for task in tasks:
                accuracy = (VTAB1K.tasks.index(task) + 10 * seed) / 100
                fake.experiment("vtab", seed, task=task, accuracy=accuracy, dense_only=True, **given)
        return rows(fake.store, ["stage=eval"])

    return make


def test_the_tasks_are_those_of_the_dataset_and_of_the_sweep():
    swept = OmegaConf.load(config_dir() / "benchmark" / "vtab1k.yaml").hydra.sweeper.params["dataset.task"]
    assert tuple(task.strip() for task in swept.split(",")) == VTAB1K.tasks
    assert set(VTAB1K.tasks) == set(TASKS)
    assert [len(tasks) for tasks in VTAB1K.groups.values()] == [7, 4, 8]


def test_a_published_average_is_the_mean_of_its_groups_to_the_digit_that_is_printed():
    for paper in VTAB1K.published:
        assert paper.source
        assert paper.groups is None or abs(statistics.fmean(paper.groups) - paper.average) < 0.1


def test_nineteen_tasks_of_three_seeds_have_both_averages_with_intervals(evaluated, lines_of):
    listed = evaluated(seeds=(0, 1, 2))
    (standing,) = standings(listed, VTAB1K)
    assert (standing.seeds, standing.missing, standing.left_out) == ((0, 1, 2), (), ())
    assert standing.of_tasks() == pytest.approx([0.09, 0.19, 0.29])
    assert standing.of_group("Natural") == pytest.approx([0.03, 0.13, 0.23])
    assert standing.of_groups() == pytest.approx([(3 + 8.5 + 14.5) / 300 + s / 10 for s in range(3)])
    line = lines_of(print_averages, [standing], VTAB1K)[1]
    assert f"{Estimate.from_seeds(standing.of_groups()).percent()} (n=3)" in line
    assert "19.00 ± 24.84 (n=3)" in line
    assert line.split()[-1] == "19/19"


def test_missing_tasks_are_named_and_a_part_of_a_group_says_so(evaluated, lines_of):
    listed = evaluated([task for task in VTAB1K.tasks if task not in ("dtd", "kitti")])
    lines = lines_of(print_benchmark, listed, VTAB1K)
    assert "(6/7)" in lines[1]
    assert "17/19" in lines[1]
    assert "note: 1: 17 of 19 tasks, which its averages are of; missing: dtd, kitti" in lines
    assert next(line for line in lines if line.startswith("kitti")).split() == ["kitti", "Structured", "–"]


def test_without_a_task_of_a_group_there_is_no_mean_of_groups(evaluated):
    (standing,) = standings(evaluated(VTAB1K.groups["Natural"]), VTAB1K)
    assert (standing.of_groups(), standing.of_group("Structured")) == ([], [])
    assert standing.of_tasks() == pytest.approx([0.03])


def test_a_seed_that_lacks_a_task_is_left_out_and_named(evaluated, lines_of):
    evaluated(["dtd", "svhn"], seeds=(0, 1))
    listed = evaluated(["dtd"], seeds=(2,))
    (standing,) = standings(listed, VTAB1K)
    assert (standing.seeds, standing.left_out) == ((0, 1), (2,))
    assert standing.mean("dtd") == pytest.approx([0.02, 0.12])
    printed = lines_of(print_averages, [standing], VTAB1K)
    assert any("leaves out seeds" in line and line.endswith(": 2") for line in printed)


def test_protocols_stand_in_lines_of_their_own_with_a_column_that_tells_them_apart(evaluated, lines_of):
    evaluated(["dtd", "svhn"])
    listed = evaluated(["dtd", "svhn"], normalization="none", weights="random-" + "b" * 64)
    lines = lines_of(print_averages, standings(listed, VTAB1K), VTAB1K)
    assert ["normalization" in lines[0], " backbone " in lines[1], " none " in lines[2]] == [True] * 3
    assert ["dense, before pruning*" in line for line in lines[1:3]] == [False, True]
    (protocol,) = [line for line in lines if line.startswith("protocol: ")]
    assert "select last, dataset.train_split train800val200, dataset.test_split test" in protocol
    assert protocol.endswith("frozen weights aaaaaaaa and random")
    assert sum(" published " in line for line in lines) == len(VTAB1K.published)


def test_of_two_evaluations_of_a_task_the_newest_counts(evaluated, fake):
    evaluated(["dtd", "svhn"])
    fake.experiment("vtab", 0, task="dtd", accuracy=0.5, dense_only=True)
    (standing,) = standings(rows(fake.store, ["stage=eval"]), VTAB1K)
    assert standing.mean("dtd") == [0.5]


def test_a_launch_is_of_a_benchmark_when_it_has_several_of_its_tasks_and_no_others(evaluated, fake):
    assert benchmark.common(evaluated(["dtd"])) is None
    assert benchmark.common(evaluated(["svhn"])) == VTAB1K
    fake.experiment("digits", dense_only=True)
    assert benchmark.common(rows(fake.store, ["stage=eval"])) is None


def test_an_unknown_benchmark_is_told_with_those_that_there_are(fake, lines_of):
    with pytest.raises(ConfigError, match='no benchmark "vtab"; did you mean "vtab1k"'):
        benchmark.named("vtab")
    (line,) = lines_of(print_benchmark, [], VTAB1K)
    assert line.endswith("run: pear run experiment=vtab1k dataset.root=DIR")


def test_a_comparison_has_the_standings_under_names_of_their_own(evaluated):
    assert models([]) == []
    evaluated(["dtd"])
    listed = evaluated(["svhn"], normalization="imagenet")
    ((found, both),) = models(compare(listed))
    assert found == VTAB1K
    assert sorted(task for _, tasks, _ in both for task in tasks) == ["dtd", "svhn"]
    assert len({name for name, _, _ in both}) == 2


def test_a_part_of_the_tasks_is_not_the_whole(evaluated):
    (standing,) = standings(evaluated([task for task in VTAB1K.tasks if task != "kitti"]), VTAB1K)
    assert standing.whole("Natural")
    assert not standing.whole("Structured")
    assert not standing.whole()
