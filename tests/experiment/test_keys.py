"""What an experiment computes again, and what it does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pear_cli.config import settings as nodes
from pear_cli.errors import ConfigError, DataError

FREE_OF_TRAINING = {
    "prune__ratio": 0.75,
    "prune__scope": "slot",
    "share__rule": "top",
    "knowledge__kind": "none",
    "knowledge__beta": 0.5,
    "optim__adapt_epochs": 7,
    "optim__optimizer_state": "reset",
    "optim__shared_grad": "mean",
    "runtime__threads": 2,
    "runtime__store": "elsewhere",
    "phase": "dense",
    "dataset__test_split": "test",
    "dataset__metric": "mean_per_class_accuracy",
    "dataset__cache": "none",
    "dataset__crop_pct": 0.5,
    "runtime__workers": 2,
    "method__lr": 0.5,
}
PART_OF_TRAINING = {
    "optim__epochs": 3,
    "optim__lr": 0.02,
    "optim__batch_size": 100,
    "optim__weight_decay": 0.0,
    "optim__warmup": 0.0,
    "optim__clip": None,
    "method__rank": 1,
    "method__scale": 2.0,
    "method__slots": ["attn.v"],
    "backbone__seed": 1,
    "backbone__drop_path": 0.1,
    "dataset__normalization": "imagenet",
    "dataset__resize": "crop",
    "dataset__interpolation": "bilinear",
    "dataset__augment": "flip_crop",
    "optim__mixup": 0.2,
    "dataset__split_seed": 1,
    "dataset__name": "mnist5k",
    "dataset__train_split": "train800",
    "select": "test_oracle",
    "seed": 1,
    "runtime__precision": "bf16",
}


def keys(experiment):
    return {name: step.key for name, step in experiment.plan.items()}


@pytest.mark.parametrize(("key", "value"), FREE_OF_TRAINING.items())
def test_dense_training_and_scoring_do_not_depend_on(make, key, value):
    one, other = keys(make()), keys(make(**{key: value}))
    assert one["train"] == other["train"]
    assert one["score"] == other["score"]


@pytest.mark.parametrize(("key", "value"), PART_OF_TRAINING.items())
def test_every_key_depends_on(make, key, value):
    if key == "dataset__split_seed":
        one, other = (
            make(dataset__train_split="train800"),
            make(dataset__train_split="train800", dataset__split_seed=1),
        )
    else:
        one, other = make(), make(**{key: value})
    for name, step in keys(one).items():
        assert step != keys(other)[name], name


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("score__criterion", "magnitude", "score"),
        ("score__reduction", "squared", "score"),
        ("score__of", "up", "score"),
        ("score__batches", None, "score"),
        ("score__batch_size", 20, "score"),
        ("prune__ratio", 0.25, "prune-share"),
        ("prune__by", "parameters", "prune-share"),
        ("prune__scope", "block", "prune-share"),
        ("share__rule", "nearest", "prune-share"),
        ("knowledge__kind", "int8", "checkpoint"),
        ("knowledge__beta", 0.5, "checkpoint"),
        ("knowledge__learn_beta", True, "checkpoint"),
        ("optim__adapt_epochs", 3, "adapt"),
        ("optim__optimizer_state", "reset", "adapt"),
        ("optim__shared_grad", "mean", "adapt"),
    ],
)
def test_a_stage_and_all_after_it_change_with_its_own_config(make, key, value, first):
    one, other = keys(make()), keys(make(**{key: value}))
    names = list(one)
    for name in names:
        assert (one[name] != other[name]) == (names.index(name) >= names.index(first)), name


def test_another_spelling_of_a_number_is_the_same_key(make):
    one = make(optim__lr=0.001, method__scale=1, knowledge__beta=1)
    other = make(optim__lr="1e-3", method__scale=1.0, knowledge__beta="1.0")
    assert keys(one) == keys(other)


def test_ratio_zero_is_one_baseline_whatever_share_and_knowledge_say(make):
    assert keys(make(prune__ratio=0)) == keys(
        make(prune__ratio=0.0, share__rule="top", knowledge__kind="int8")
    )


def test_settings_that_a_criterion_or_no_pruning_does_not_read_change_no_key(make):
    assert keys(make(score__criterion="magnitude", score__reduction="squared", score__of="up")) == keys(
        make(score__criterion="magnitude")
    )
    assert keys(make(prune__ratio=0, prune__scope="slot", prune__by="parameters")) == keys(
        make(prune__ratio=0)
    )


@pytest.mark.parametrize("kind", ["none", "absorb", "frozen"])
def test_settings_that_a_kind_of_knowledge_does_not_read_change_no_key(make, kind):
    unread = {"knowledge__rank": 2} | (
        {} if kind == "frozen" else {"knowledge__beta": 0.5, "knowledge__learn_beta": True}
    )
    plain, other = make(knowledge__kind=kind), make(knowledge__kind=kind, **unread)
    assert {n: step.key for n, step in plain.plan.items()} == {n: step.key for n, step in other.plan.items()}


def test_one_schedule_over_both_phases_ties_dense_training_to_where_it_stops(make):
    continued = {"optim__schedule": "continued", "optim__epochs": 4}
    one, other = keys(make(**continued)), keys(make(**continued, optim__prune_at=0.25))
    assert one["train"] != other["train"]
    assert keys(make(**continued, optim__adapt_epochs=9)) == one


def test_the_backbones_statistics_matter_only_where_the_normalisation_reads_them(make):
    def key(normalization, mean):
        return make(dataset__normalization=normalization, backbone__mean=mean).plan["train"].key

    assert key("half", [0.5] * 3) == key("half", [0.4] * 3)
    assert key("backbone", [0.5] * 3) != key("backbone", [0.4] * 3)


def test_seed_of_the_score_matters_only_to_the_random_criterion(make):
    step = make(score__criterion="random").plan["score"]
    assert step.config["seed"] == 0
    assert "seed" not in make().plan["score"].config


def test_keys_need_neither_torch_nor_timm(tmp_path):
    code = (
        "import sys; from pear_cli.experiment.read import read; from omegaconf import OmegaConf\n"
        "import runpy\n"
        f"m = runpy.run_path({str(Path(__file__).parent.parent / 'conftest.py')!r})\n"
        "print(read(OmegaConf.create(m['TINY'])).plan['eval'].key)\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune__ratio": 1}, "prune.ratio = 1.0 is out of range"),
        ({"prune__ratio": -0.1}, "prune.ratio = -0.1 is out of range"),
        ({"prune__ratio": "abc"}, "prune.ratio"),
        ({"prune__ratio": float("nan")}, "prune.ratio"),
        ({"optim__epoch": 1}, "no setting 'epoch'; did you mean \"epochs\"?"),
        ({"method___target_": "os.system"}, "os.system is refused"),
        ({"method___target_": "pear_cli.store.store.Store"}, "not a Method"),
        ({"score__criterion": "tailor"}, "tailor"),
        ({"seed": -1}, "seed = -1"),
        ({"select": "best"}, 'select = "best" is unknown'),
        ({"select": "val", "dataset__train_split": "train800val200"}, "select=val chooses on val200"),
        ({"dataset__name": "digit"}, "digit"),
        ({"method__rank": 0}, "method.rank = 0"),
    ],
)
def test_a_wrong_config_is_an_error_that_names_the_key(make, changes, message):
    with pytest.raises((ConfigError, DataError)) as error:
        make(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize("setting", ["steps", "round_to"])
def test_ways_of_pruning_are_refused_where_a_method_prunes_nothing(make, setting):
    full = {"_target_": "pear_cli.adapters.full.FullFineTuning", "lr": 0.01, "slots": []}
    changes = {"method": full, f"prune__{setting}": 2}
    with pytest.raises(ConfigError, match=f"prune.{setting} = 2 is of channels; it needs score.unit=channel"):
        make(**changes)
    make(**changes, score__unit="channel", share__rule="none", knowledge__kind="none")


def test_a_settings_class_that_moves_to_another_module_keeps_every_key(make, monkeypatch):
    before = keys(make())
    for kind in ("Score", "Prune", "Share", "Knowledge", "Optim", "Backbone"):
        monkeypatch.setattr(getattr(nodes, kind), "__module__", "pear_cli.elsewhere")
    assert keys(make()) == before


def test_manifests_of_a_whole_run_name_only_methods_and_datasets_of_pear(finished):
    for artifact in finished.made.values():
        text = (artifact.path / "manifest.json").read_text()
        paths = set(re.findall(r"pear_cli[\w.]*", text))
        assert paths <= {"pear_cli.adapters.lora.LoRA", "pear_cli.data.bundled.Bundled"}, artifact.stage
