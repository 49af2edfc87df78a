"""Several processes for one job: the result of one, whatever happens to them."""

import json
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from omegaconf import OmegaConf

from pear_cli.errors import ConfigError, DataError, PearError
from pear_cli.experiment.experiment import Experiment
from pear_cli.experiment.read import read
from pear_cli.launch import accelerated
from pear_cli.stages.perform import perform, perform_all
from pear_cli.stages.start import check_team
from pear_cli.store.store import Store
from pear_cli.system.processes import leave
from pear_cli.system.team import Several, this_team
from pear_cli.training import devices

HERE = Path(__file__).parent.parent
PEAR = [sys.executable, "-m", "pear_cli"]
TINY = ["--config-dir", str(HERE / "configs"), "backbone=tiny", "dataset=digits", "runtime.store=store"]

ADAPTFORMER = {
    **{"_target_": "pear_cli.adapters.adaptformer.AdaptFormer", "lr": 0.01, "rank": 2, "scale": 0.1},
    **{"dropout": 0.1, "bias": True, "slots": ["mlp"]},
}
LILY = {
    **{"_target_": "pear_cli.adapters.lily.Lily", "lr": 0.01, "rank": 2, "scale": 1.0, "experts": 2},
    **{"stride": None, "monoscale": False, "router_stats": "running", "slots": ["attn.k"]},
}
# Of 1000 images, batches of 333 leave a last one of a single image, fewer than there are processes.
CASES = {
    "lora, shared": {"optim.batch_size": 333, "optim.accumulate": 2, "backbone.drop_path": 0.2},
    "adaptformer, mixed": {
        **{"method": ADAPTFORMER, "optim.mixup": 0.4, "dataset.augment": "randaugment"},
        **{"optim.shared_grad": "mean", "share.rule": "top"},
    },
    "full": {"method": {"_target_": "pear_cli.adapters.full.FullFineTuning", "lr": 1e-3, "slots": []}},
    "bf16": {"runtime.precision": "bf16"},
}
DENSE = ("full", "bf16")
ONE_IMAGE = 1.01e-3  # of the 1000 images of an epoch
TOLERANCE = {"bf16": 2e-2}
OF_WEIGHTS = {"bf16": 2e-2, "full": 1e-3}  # AdamW makes whole steps of gradients that are nothing but noise

FAILURES = {
    "not finite": {"optim.lr": 7.0},
    "data gone elsewhere": {"dataset.interpolation": "bilinear"},
    "bug elsewhere": {"seed": 8},
    "lily": {"method": LILY},
}


def experiment(changes) -> Experiment:
    cfg = OmegaConf.create(runpy.run_path(str(HERE / "conftest.py"))["TINY"])
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    if not cfg.method.slots or cfg.method == LILY:
        cfg.share.rule = cfg.knowledge.kind = "none"
    return read(cfg)


def diverge() -> None:
    """Let the loss at one learning rate be infinite, on every process."""
    from pear_cli.training.engine import Trainer

    def loss(self, logits, *args, well=Trainer._loss):
        found = well(self, logits, *args)
        return found * float("inf") if self.optim.lr == 7.0 else found

    Trainer._loss = loss


def lead(store: Store) -> None:
    """What the main process does; after each failure the next job is well."""
    diverge()
    failed = {}
    for name, changes in FAILURES.items():
        with pytest.raises(PearError) as error:
            perform("train", experiment(changes), store)
        failed[name] = str(error.value)
    for name in CASES:
        make(name, store)
    assert not [*store.root.rglob(".tmp-*")]
    (store.root / "failed.json").write_text(json.dumps(failed))
    this_team().dismiss()


def follow() -> int:
    """What the other one does; it has troubles of its own."""
    from pear_cli.data import loading
    from pear_cli.stages.follower import serve
    from pear_cli.training import engine

    def load(dataset, *args, well=loading.load):
        if dataset.interpolation.value == "bilinear":
            raise DataError("image 3 is gone")
        return well(dataset, *args)

    def backward(self, *args, well=engine.Trainer._backward):
        return 1 / 0 if self.seed == 8 else well(self, *args)

    loading.load, engine.Trainer._backward = load, backward
    diverge()
    return serve()


def make(name: str, store: Store) -> None:
    if name in DENSE:
        perform("train", experiment(CASES[name]), store)
    else:
        perform_all(experiment(CASES[name]), store)


def test_two_processes_have_the_loss_curve_and_the_weights_of_one_and_share_their_failures(tmp_path):
    one, two = (Store(tmp_path / name) for name in ("one", "two"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    numbers = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(two.root)],
            env=os.environ | {k: str(v) for k, v in (numbers | {"RANK": rank, "LOCAL_RANK": rank}).items()},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for name in CASES:
            make(name, one)
        for process in started:
            said = process.communicate(timeout=300)[1]
            assert process.returncode == 0, said
    finally:
        for process in started:
            process.kill()
            process.communicate()

    for name, changes in CASES.items():
        plan = experiment(changes).plan
        for step in (plan["train"],) if name in DENSE else (plan["train"], plan["adapt"]):
            same_training(name, one.get(step.stage, step.key), two.get(step.stage, step.key))
        if name not in DENSE:
            evaluated = [store.get("eval", plan["eval"].key).manifest for store in (one, two)]
            losses = [manifest["metrics"]["loss"] for manifest in evaluated]
            assert losses[1] == pytest.approx(losses[0], abs=1e-4)
            assert [manifest["environment"]["processes"] for manifest in evaluated] == [1, 1]

    failed = json.loads((two.root / "failed.json").read_text())
    assert "the loss is" in failed["not finite"]
    assert failed["data gone elsewhere"] == "process 1 of 2: image 3 is gone"
    assert failed["bug elsewhere"] == "process 1 of 2: ZeroDivisionError: division by zero"
    assert failed["lily"].startswith(
        "Lily averages over each batch in training, and 2 processes see a part of"
    )


def same_training(case, alone, together):
    for mine, theirs in zip(alone.json("history"), together.json("history"), strict=True):
        near = TOLERANCE.get(case, 1e-4)
        one = max(near, ONE_IMAGE)  # two logits of an image may all but tie, and sums in another order decide
        assert theirs.pop("train_accuracy") == pytest.approx(mine.pop("train_accuracy"), abs=one), case
        assert theirs == pytest.approx(mine, abs=near), case
    for name, tensor in alone.tensors("adapters").items():
        found, atol = together.tensors("adapters")[name], OF_WEIGHTS.get(case, 1e-4)
        torch.testing.assert_close(found, tensor, atol=atol, rtol=0.1)
    assert [made.manifest["environment"]["processes"] for made in (alone, together)] == [1, 2]


def lines(process):
    return [line for line in process.stderr.read().splitlines() if line.startswith("pear ")]


def test_a_process_that_is_killed_ends_the_job_with_one_error_and_the_next_start_goes_on(tmp_path, pear):
    words = [*TINY, "optim.epochs=30", "optim.batch_size=500", "method.rank=2"]
    several_words = [*words, "runtime.processes=2", "runtime.threads=1"]
    started = {"cwd": tmp_path, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*PEAR, "train", *several_words], **started) as process:
        for line in process.stderr:
            if line.startswith("train 3/30"):
                break
        others = psutil.Process(process.pid).children(recursive=True)
        follower = next(p for p in others if p.environ().get("RANK") == "1")
        assert follower.cmdline()[1:] == ["-u", "-m", "pear_cli", "train", *several_words]
        follower.send_signal(signal.SIGKILL)
        (error,) = lines(process)
    assert process.returncode == 1
    assert "process" in error
    assert error.endswith("what is finished is kept, the same command resumes from there")
    deadline = time.monotonic() + 10
    while any(other.is_running() and other.status() != "zombie" for other in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not [*tmp_path.glob("store/train/*/manifest.json")]

    tracked = [*several_words, "runtime.tracker=tensorboard", "-m", "seed=0", "--json"]
    done = subprocess.run([*PEAR, "train", *tracked], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch" in done.stderr
    (result,) = map(json.loads, done.stdout.splitlines())
    assert result["metrics"]["epochs"] == 30
    (folder,) = tmp_path.glob("outputs/sweeps/*/*/0")
    history = json.loads(Path(result["artifact"], "history.json").read_text())
    assert followed(folder, "train_loss") == pytest.approx([record["train_loss"] for record in history])
    assert min(followed(folder, "images_per_second")) > 0

    again = pear("train", *words, "--json", "hydra/job_logging=none", "hydra/hydra_logging=none")
    assert json.loads(again.out)["reused"]
    assert json.loads(pear("train", *several_words, "--json", "-q").out)["reused"]  # nothing is started


def followed(folder, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = folder.glob("tensorboard/train-*")
    return [event.value for event in EventAccumulator(str(place)).Reload().Scalars(name)]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("runtime.processes=0", "runtime.processes = 0 is out of range: 1 to 256"),
        ("runtime.processes=2 runtime.device=cuda", "need a GPU each, but this machine has"),
        ("runtime.processes=2 runtime.device=cuda:1", "choose their own GPUs"),
        (
            "-m runtime.processes=2 seed=0,1 hydra/launcher=pear_joblib",
            "runtime.processes = 2 does not go with JoblibLauncher",
        ),
    ],
)
def test_what_cannot_be_several_processes_is_one_clear_error(pear, quiet, words, remedy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    said = pear("train", *TINY, *quiet, "optim.epochs=1", *words.split())
    assert said.code == 1
    (error,) = [line for line in said.err.splitlines() if remedy in line]
    assert "Traceback" not in said.err
    assert error


def test_one_gpu_is_not_enough_for_two_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError) as refused:
        devices.check("cuda", 2)
    assert str(refused.value) == (
        "2 processes need a GPU each, but this machine has 1 GPU; use runtime.processes=1, or "
        "runtime.device=cpu"
    )
    devices.check("cpu", 2)


def test_the_parts_of_a_batch_are_the_batch_and_nothing_twice():
    for count in (1, 2, 3, 10, 97):
        parts = [Several(rank, 4, rank, 4).part(count) for rank in range(4)]
        counted = torch.cat([part.places for part in parts if part.counted])
        assert counted.tolist() == list(range(count))
        assert sum(part.counted for part in parts) == count
        assert all(len(part.places) for part in parts)
        assert max(part.counted for part in parts) - min(part.counted for part in parts) <= 1
        for part in parts:
            mine, theirs = part.with_counterparts().places.chunk(2)
            assert (mine + theirs).tolist() == [count - 1] * len(mine)


def test_what_the_main_process_has_told_is_not_told_again(capsys):
    assert accelerated._tell("train", {0: 2}, 2) == 2
    assert capsys.readouterr().err == ""
    assert accelerated._tell("train", {0: -signal.SIGTERM, 1: -signal.SIGKILL}, 2) == 1
    assert capsys.readouterr().err.startswith("pear train: process 1 of 2 was killed by SIGKILL; ")
    assert accelerated._tell("train", {0: -signal.SIGTERM, 1: 3}, 2) == 1
    assert "process 1 of 2 ended with exit code 3" in capsys.readouterr().err


def test_a_number_of_processes_other_than_asked_for_is_refused():
    asked = experiment({"runtime.processes": 3})
    with pytest.raises(ConfigError, match=r"runtime.processes = 3, but this pear was started as 2"):
        check_team(asked, Several(0, 2, 0, 2))
    check_team(asked, Several(0, 3, 0, 3))


def test_an_experiment_can_be_sent_to_another_process():
    sent = experiment({})
    step = sent.plan["train"]
    assert pickle.loads(pickle.dumps(step)).key == step.key
    assert pickle.loads(pickle.dumps(sent)) == sent


if __name__ == "__main__":
    leave((follow() if os.environ["RANK"] == "1" else lead(Store(Path(sys.argv[1])))) or 0)
