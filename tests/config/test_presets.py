"""Every YAML in conf/ is composed, and built into the objects that it describes."""

import itertools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from pear_cli.config.choices import Criterion, Scope
from pear_cli.config.presets import config_dir
from pear_cli.config.settings import OF_CHANNELS
from pear_cli.errors import ConfigError
from pear_cli.experiment.experiment import GROUPS, Experiment
from pear_cli.experiment.read import read

CONF = config_dir()
PRESETS = [path.relative_to(CONF).with_suffix("") for path in sorted(CONF.glob("*/*.yaml"))]
CHANNELS = ["method=splora"]
NEEDS = {
    "score/channel": ["method=full"],
    "score/group_magnitude": CHANNELS,
    "score/group_taylor": CHANNELS,
    "score/block": ["method=splopa"],
    "backbone/timm": ["backbone.name=vit_base_patch16_224.augreg_in21k"],
}


def composed(*overrides: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", list(overrides))


def built(*overrides: str) -> Experiment:
    return read(composed(*overrides))


def test_the_root_has_the_groups_of_an_experiment_and_no_others():
    assert set(composed()) == {*GROUPS, "seed", "select", "phase"}


@pytest.mark.parametrize("preset", PRESETS, ids=str)
def test_every_preset_composes_and_builds(preset: Path):
    built(f"{preset.parent}={preset.name}", *NEEDS.get(str(preset), []))


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_opens_with_its_purpose_a_command_and_the_source_of_its_numbers(path: Path):
    lines = path.read_text().splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert any(line.lstrip("# ").startswith("pear ") for line in head)
    assert any(line.startswith("# Numbers: ") for line in head)
    assert next(line for line in head if "@package" not in line).startswith("# ")


@pytest.mark.parametrize("rule", ["none", "top", "ranked", "nearest", "similar"])
def test_a_share_rule_is_a_preset_and_a_value(rule):
    assert built(f"share={rule}").share == built(f"share.rule={rule}").share


@pytest.mark.parametrize("kind", ["none", "frozen", "lowrank", "int8", "absorb"])
def test_a_kind_of_knowledge_is_a_preset_and_a_value(kind):
    assert built(f"knowledge={kind}").knowledge == built(f"knowledge.kind={kind}").knowledge


@pytest.mark.parametrize("criterion", list(Criterion))
def test_a_criterion_is_a_preset_and_a_value(criterion):
    preset, value = f"score={criterion.value}", f"score.criterion={criterion.value}"
    base = CHANNELS if criterion in OF_CHANNELS else []
    assert built(*base, preset).score == built(*base, value).score


@pytest.mark.parametrize("unit", ["head", "rank"])
def test_a_unit_is_a_preset_that_shares_and_keeps_nothing(unit):
    values = (f"score.unit={unit}", "share=none", "knowledge=none")
    assert built(f"score={unit}") == built(*values)
    with pytest.raises(ConfigError, match="only whole adapters are shared"):
        built(f"score={unit}", "share=top")


def test_heat_is_lora_by_heads_in_every_block_whatever_the_criterion():
    found = built("method=heat", "score=magnitude")
    assert found.score == built("score=head", "score.criterion=magnitude").score
    assert found.method == built("method=lora").method
    assert (found.prune.scope, found.share.rule.value) == (Scope.block, "none")


def test_a_chosen_unit_is_stronger_than_the_methods_own():
    assert built("method=heat", "score=rank").score == built("score=rank").score
    assert built("score=rank", "method=heat").score == built("score=rank").score
    with pytest.raises(ConfigError, match="SPLoRA has no such units"):
        built("method=splora", "score=head")


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        ("method=lora score=channel", "use score.unit=adapter, head, rank or method=splora, sppara or full"),
        ("method=adaptformer score.unit=channel", "use score.unit=adapter or method=splora"),
        ("method=linear score=channel", "use method=splora, sppara or full"),
        ("method=splopa score=channel", "use score.unit=block or method=splora"),
        ("method=splora score.unit=adapter share=ranked", "use score.unit=channel or another method"),
        ("method=full score=head", "FullFineTuning has no such units; use score=channel or another method"),
        ("method=full score=block", "FullFineTuning has no such units; use score=channel or method=splopa"),
        ("method=splora score=channel share=ranked", "share.rule = ranked: only whole adapters"),
        ("method=full score=channel knowledge=frozen", "knowledge.kind = frozen: only whole adapters"),
        ("method=splora score=ablation", "fisher, group_taylor, group_magnitude, or random"),
        ("method=splopa score=activation", "fisher, or random"),
        (
            "score.criterion=group_taylor",
            "it needs score.unit=channel; use the preset score=group_taylor",
        ),
    ],
)
def test_channels_are_neither_shared_nor_of_other_methods_and_the_error_says_what_to_do(overrides, remedy):
    with pytest.raises(ConfigError) as refused:
        built(*overrides.split())
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_learning_rate_is_the_methods_own_unless_it_is_set():
    assert built("method=adaptformer").optim.lr == composed("method=adaptformer").method.lr
    assert built("method=adaptformer", "optim.lr=0.1").optim.lr == 0.1


def test_adaptation_is_as_long_as_dense_training_unless_it_is_set():
    assert built("optim.epochs=7").optim.adapt_epochs == 7
    assert built("optim.epochs=7", "optim.adapt_epochs=3").optim.adapt_epochs == 3


def test_the_vtab_protocol_is_the_published_one():
    optim = built("optim=vtab").optim
    assert (optim.epochs, optim.lr, optim.weight_decay, optim.batch_size) == (100, 1e-3, 1e-4, 64)
    assert (optim.warmup, optim.start_lr, optim.final_lr, optim.clip) == (0.1, 1e-6, 1e-5, None)


def test_the_build_puts_conf_weights_and_data_into_the_package():
    import tomllib

    project = CONF.parent / "pyproject.toml"
    wheel = tomllib.loads(project.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"conf": "pear_cli/conf"}
    assert {"pear_cli/weights/*.safetensors", "pear_cli/data/files/*"} <= set(wheel["artifacts"])
