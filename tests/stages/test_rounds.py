"""Pruning in several rounds: each scores what is left, prunes, and adapts."""

import copy
import sys

import pytest
import torch

from pear_cli.backbone.widths import Side
from pear_cli.errors import ConfigError
from pear_cli.export.single_file import read
from pear_cli.export.writing import export
from pear_cli.model import models
from pear_cli.model.load import load_model
from pear_cli.model.merge import merge
from pear_cli.pruning.mask import Mask
from pear_cli.report.terminal.exported import print_exported
from pear_cli.report.terminal.layout import console
from pear_cli.scoring.importance import Importance
from pear_cli.stages.perform import perform_all

SPLORA = {
    "_target_": "pear_cli.adapters.splora.SPLoRA",
    "lr": 0.01,
    "rank": 2,
    "slots": ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"],
}
FULL = {"_target_": "pear_cli.adapters.full.FullFineTuning", "lr": 0.01, "slots": []}
ROUNDS = {
    "share__rule": "none",
    "knowledge__kind": "none",
    "score__unit": "channel",
    "prune__scope": "slot",
    "prune__steps": 3,
    "prune__ratio": 0.7,
    "optim__adapt_epochs": 4,
}


@pytest.fixture(params=[SPLORA, FULL], ids=["splora", "full"])
def rounds(request, make, store):
    experiment = make(**ROUNDS, method=request.param)
    outcomes = perform_all(experiment, store)
    return {name: outcome.artifact for name, outcome in zip(experiment.plan, outcomes, strict=True)}


def masks(made):
    return [
        Mask.from_json(made[name].json("mask")) for name in ("prune-share.1", "prune-share.2", "prune-share")
    ]


def test_every_round_prunes_an_even_share_more_of_what_it_scores(rounds):
    first, second, last = (set(mask.pruned) for mask in masks(rounds))
    assert first < second < last
    scored = Importance.from_json(rounds["score.1"].json("importance"))
    units = [unit.name for unit in scored.units if unit.slot == "mlp.fc1"]
    gone = [len(found.intersection(units)) for found in (first, second, last)]
    assert gone == [int(0.7 * share / 3 * len(units) + 0.5) for share in (1, 2, 3)]
    again = Importance.from_json(rounds["score"].json("importance")).by_name()
    assert max(again[name] for name in second) < min(again[name] for name in again.keys() - second)


def test_a_round_narrows_the_network_of_the_round_before_to_its_zeroed_logits(rounds):
    (wide, before), (narrow, after) = (load_model(rounds[name]) for name in ("adapt.1", "checkpoint.2"))
    zeroed = merge(copy.deepcopy(wide))
    lost = after.built_widths().since(before.built_widths())
    for module, sides in lost.kept.items():
        if Side.out in sides:
            for parameter in zeroed.get_submodule(module).parameters():
                parameter.data[~sides[Side.out]] = 0
    torch.testing.assert_close(models.probe(narrow, 16), models.probe(zeroed, 16), atol=1e-4, rtol=0)
    assert not torch.allclose(models.probe(narrow, 16), models.probe(wide, 16), atol=1e-4)


def test_the_epochs_of_adaptation_and_their_schedule_go_over_all_rounds(rounds):
    histories = [rounds[name].json("history") for name in ("adapt.1", "adapt.2", "adapt")]
    assert [len(history) for history in histories] == [1, 1, 2]
    rates = [record["lr"] for history in histories for record in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]
    state, tensors = rounds["checkpoint"].tensors("optimizer"), rounds["checkpoint"].tensors("adapters")
    assert state
    assert all(t.shape == tensors[n.rpartition("::")[0]].shape for n, t in state.items() if t.ndim)
    assert all(float(t) == 5 * 4 for n, t in state.items() if n.endswith("::step"))


def test_what_the_last_round_leaves_is_evaluated_and_rebuilt(rounds):
    model, description = load_model(rounds["adapt"])
    assert (
        description.built_widths().kept.keys()
        == load_model(rounds["checkpoint"])[1].built_widths().kept.keys()
    )
    torch.testing.assert_close(models.probe(model, 16), rounds["adapt"].tensors("probe")["logits"])
    assert rounds["eval"].manifest["accounting"]["speedup_theoretical"] > 1.5


def test_one_round_or_nothing_to_prune_is_the_plain_experiment(make):
    plain, dense = make(**ROUNDS, method=SPLORA), make(**ROUNDS | {"prune__ratio": 0}, method=SPLORA)
    assert list(dense.plan) == ["train", "score", "prune-share", "checkpoint", "adapt", "eval"]
    assert len(plain.plan) == 14
    assert plain.plan["train"].key == dense.plan["train"].key
    assert plain.plan["score.1"].key == dense.plan["score"].key


def test_rounds_are_of_channels(make):
    with pytest.raises(ConfigError, match=r"prune.steps = 2 is of channels; it needs score.unit=channel"):
        make(prune__steps=2)
    with pytest.raises(ConfigError, match=r"prune.steps = 0 is out of range"):
        make(prune__steps=0)
    with pytest.raises(ConfigError, match=r"prune.steps = 5 is more than the epochs of adaptation \(4\)"):
        make(**ROUNDS | {"prune__steps": 5}, method=SPLORA)
    assert len(make(**ROUNDS | {"optim__adapt_epochs": 0}, method=SPLORA).plan) == 14


def test_an_exported_file_says_what_is_left_without_a_word_on_each_unit(rounds, tmp_path, capsys):
    file = export(rounds["adapt"].path, tmp_path / "model.safetensors")
    assert file.stat().st_size < rounds["adapt"].manifest["accounting"]["stored_bytes"] + 6000
    assert read(file).importance is None
    print_exported(file, console(sys.stdout))
    shown = capsys.readouterr().out
    lost = masks(rounds)[-1].by_place()["blocks.0.mlp.fc1"]
    assert f"{64 - len(lost)}/64" in shown
    assert "█" not in shown
