"""Trackers follow a training; whatever becomes of them, it goes on."""

import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest

from pear_cli.config.choices import Tracker
from pear_cli.errors import ConfigError
from pear_cli.training import trackers

SETTINGS = {"optim": {"lr": 0.1, "clip": None}, "phase": "dense"}


class Wandb(SimpleNamespace):
    """The part of wandb that Accelerate uses."""

    __spec__ = ModuleSpec("wandb", None)

    def __init__(self, broken=False):
        super().__init__(config={}, logged=[], finished=False, broken=broken, init=self._init)

    def _init(self, **arguments):
        self.arguments = arguments
        return self

    def log(self, values, step):
        if self.broken:
            raise ConnectionError("no route to host")
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    def put(**how):
        fake = Wandb(**how)
        fake.config = SimpleNamespace(update=lambda values, **_: setattr(fake, "settings", values))
        monkeypatch.setitem(sys.modules, "wandb", fake)
        return fake

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    return put


def follow(folder, kind=Tracker.wandb):
    with trackers.following(kind, folder, "train-3f2a", SETTINGS) as listener:
        listener.log({"train_loss": 1.0}, 1)
        listener.log({"train_loss": 0.5}, 2)


def test_wandb_is_offline_where_there_is_no_key_and_keeps_its_files_in_the_jobs_folder(wandb, tmp_path):
    fake = wandb()
    follow(tmp_path)
    assert fake.arguments == {
        **{"project": "pear", "name": "train-3f2a", "mode": "offline"},
        "dir": str(tmp_path),
    }
    assert fake.settings == {"optim.lr": 0.1, "optim.clip": "None", "phase": "dense"}
    assert fake.logged == [(1, {"train_loss": 1.0}), (2, {"train_loss": 0.5})]
    assert fake.finished


def test_wandb_is_offline_where_its_server_is_out_of_reach_and_the_user_has_the_last_word(
    wandb, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:1")
    fake = wandb()
    follow(tmp_path)
    assert fake.arguments["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    follow(tmp_path)
    assert "mode" not in fake.arguments


def test_a_tracker_that_fails_is_left_out_with_one_warning(wandb, tmp_path, capfd):
    wandb(broken=True)
    follow(tmp_path)
    warning = (
        "warning: runtime.tracker = wandb fails (ConnectionError: no route to host); training continues "
    )
    assert capfd.readouterr().err.splitlines() == [f"{warning}without it"]


def test_a_tracker_that_does_not_start_is_left_out(wandb, tmp_path, capfd):
    wandb()._init = None
    sys.modules["wandb"].init = None
    follow(tmp_path)
    assert "runtime.tracker = wandb fails (TypeError" in capfd.readouterr().err


def test_a_tracker_whose_package_is_missing_is_an_error_before_any_work(pear, quiet, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "mlflow" else object())
    said = pear("train", "runtime.tracker=mlflow", *quiet)
    remedy = "runtime.tracker = mlflow needs mlflow; install it: pip install 'pear-cli[mlflow]'"
    assert (said.code, said.out) == (1, "")
    assert said.err == f"pear train: {remedy}\n"
    with pytest.raises(ConfigError):
        trackers.check(Tracker.mlflow)
    trackers.check(Tracker.none)
