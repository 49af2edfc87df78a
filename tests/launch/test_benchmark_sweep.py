"""A sweep over the tasks of a benchmark, from images in files to its averages."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIGS = Path(__file__).parent.parent / "configs"
TASKS = ("dtd", "eurosat", "kitti", "svhn")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four tasks of two shades of grey, in the form of VTAB-1k's archive."""
    folder = tmp_path_factory.mktemp("vtab")
    for task in TASKS:
        (folder / task / "images").mkdir(parents=True)
        for part, count in (("train800", 8), ("val200", 4), ("test", 6)):
            lines = [f"images/{part}{i}.jpg {i % 2}" for i in range(count)]
            for i, line in enumerate(lines):
                pixels = np.full((18, 20, 3), 60 + 120 * (i % 2), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / task / line.split()[0])
            (folder / task / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_a_benchmark_is_a_sweep_that_ends_with_its_averages(pear, quiet, root, tmp_path):
    words = (f"--config-dir={CONFIGS}", "experiment=vtab1k", "backbone=tiny", f"dataset.root={root}")
    short = (f"dataset.task={','.join(TASKS)}", "optim.epochs=1", "runtime.store=store", *quiet)
    said = pear("run", *words, *short, "method=lora")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 4
    assert said.err.count("tiny_patch16_224 has random weights") == 4
    assert "note: 1: 4 of 19 tasks, which its averages are of; missing: caltech101, cifar" in said.err
    assert "protocol: select last, dataset.normalization none" in said.err

    listed = pear("ls", "--benchmark", "vtab1k", "runtime.store=store", "--json")
    (standing,) = map(json.loads, listed.out.splitlines())
    assert (standing["seeds"], sorted(standing["tasks"])) == ([0], list(TASKS))
    assert len(standing["missing_tasks"]) == 15
    assert [len(standing[key]) for key in ("mean_of_groups", "mean_of_tasks")] == [1, 1]


def test_without_a_choice_of_tasks_every_one_is_a_job(pear, quiet, tmp_path):
    said = pear("run", "experiment=vtab1k", "backbone=pear_mini", "dataset.root=nowhere", *quiet)
    assert said.code == 1
    failed = [line for line in said.err.splitlines() if re.match(r" *\d+  .*dataset.task=", line)]
    assert len(failed) == 19
    assert [
        sum(f"={task} " in f"{line} " for line in failed) for task in ("caltech101", "smallnorb_ele")
    ] == [1, 1]


def test_papers_settings_go_with_the_benchmark_too(pear, quiet, root):
    words = ("benchmark=vtab1k", "experiment=pear_vtab", "dataset.task=dtd", "--cfg", "job")
    said = pear("run", *words, *quiet)
    assert said.code == 0
    assert "schedule: continued" in said.out
