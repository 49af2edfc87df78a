"""Dry runs: what is there, what would be computed and in what time; nothing is run or written."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pear_cli.experiment.estimate import estimates
from pear_cli.experiment.planning import STARTED, THERE, TO_DO, plan
from pear_cli.experiment.step import ORDER

CONFIGS = Path(__file__).parent.parent / "configs"
FLAGS = ("--config-dir", str(CONFIGS))
TINY = (*FLAGS, "backbone=tiny", "dataset=digits", "optim.epochs=1", "runtime.threads=1")


@pytest.fixture
def known(finished):
    """The finished experiment with changes, as `node__key=value`."""

    def change(**changes):
        found = finished.experiment
        changes = {"runtime__store": str(finished.store.root), **changes}
        for name, value in changes.items():
            node, _, key = name.partition("__")
            new = dataclasses.replace(getattr(found, node), **{key: value}) if key else value
            found = dataclasses.replace(found, **{node: new})
        return found

    return change


def test_stages_that_jobs_share_are_planned_once(known):
    jobs = {0: known(), 1: known(prune__ratio=0.25), 2: known(seed=5)}
    planned = plan("run", jobs)
    assert len(planned) == 6 + 4 + 6
    assert {p.step.name for p in planned if p.jobs == (0, 1)} == {"train", "score"}
    assert {p.state for p in planned if 0 in p.jobs} == {THERE}
    assert {p.state for p in planned if p.jobs == (2,)} == {TO_DO}


def test_a_training_that_was_interrupted_is_told_from_one_that_was_not_begun(known, finished):
    experiment = known(seed=6)
    step = experiment.plan["train"]
    finished.store.workspace(step.stage, step.key)
    assert [p.state for p in plan("train", {0: experiment})] == [STARTED]


def test_a_training_is_estimated_by_its_epochs_from_the_nearest_one(known, finished):
    longer = known(seed=7, optim__epochs=20)
    (train,) = plan("train", {0: longer})
    made = finished.made["train"].manifest
    assert estimates([train])[train.folder] == pytest.approx(10 * made["seconds"])
    assert made["metrics"]["epochs"] == 2


def test_another_backbone_has_no_estimate(known):
    wider = known(backbone__args={**known().backbone.args, "embed_dim": 32})
    assert set(estimates(plan("run", {0: wider})).values()) == {None}


def test_a_plan_needs_no_torch_and_writes_nothing(tmp_path):
    code = (
        "import sys\nfrom pear_cli.cli.app import perform\n"
        "code = perform(sys.argv[1:])\n"
        "print([m for m in ('torch', 'timm') if m in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    words = (*TINY, "-m", "--dry-run", "prune.ratio=0,0.5", "seed=0,1")
    line = [sys.executable, "-c", code, "run", *words]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    *rows, total, heavy = done.stderr.splitlines()
    assert [row.split()[:3] for row in rows[1:3]] == [["train", "2", "0"], ["score", "2", "0"]]
    assert total == "4 jobs: 20 of 20 stages to compute; no past stages to estimate the time from"
    assert heavy == "[]"
    assert not list(tmp_path.iterdir())


def test_json_has_a_line_a_stage_on_stdout(pear):
    said = pear("run", *TINY, "--dry-run", "--json", "-q")
    assert said.err == ""
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["step"] for line in lines] == list(ORDER)
    for line in lines:
        assert (line["state"], line["seconds"], line["jobs"]) == ("to do", None, [0])
    assert Path(lines[0]["path"]).parts[-2:] == ("train", lines[0]["key"])


def test_a_job_that_would_fail_is_named_and_the_others_are_planned(pear):
    said = pear("run", *TINY, "--dry-run", "-m", "prune.ratio=0.5,1.2")
    assert said.code == 1
    assert said.err.startswith("pear run: job 1 (prune.ratio=1.2): prune.ratio = 1.2 is out of range")
    assert "1 job: 6 of 6 stages to compute" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("score",), "nothing trained for this configuration yet; run: pear train "),
        (("score", "method=linear"), "LinearProbe has no adapters"),
        (("run", "method=lorra"), 'no method "lorra"; did you mean "lora"?'),
        (("run", "method=lora,lorra", "-m"), 'no method "lorra"; did you mean "lora"?'),
        (("run", "seed=0,1"), "seed=0,1 has several values; add -m to sweep over them"),
        (("run", "phase=dense"), "phase = dense: pear run goes through both"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_dry_run_refuses_what_the_command_would(words, message, pear, tmp_path):
    said = pear(*words, *TINY, "--dry-run")
    assert (said.code, said.out) == (1, "")
    assert message in said.err
    assert not list(tmp_path.iterdir())
