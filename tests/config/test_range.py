"""Every number of an experiment has a range, and what is outside is refused before any work."""

import math
import time
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from omegaconf import OmegaConf

from pear_cli.config.node import _target
from pear_cli.config.presets import presets_of
from pear_cli.config.range import Range, hints
from pear_cli.errors import ConfigError
from pear_cli.experiment.experiment import GROUPS, Experiment
from pear_cli.experiment.read import read

NO_NUMBERS = [10**400, -(10**400), 10**21, "1e400", math.nan, math.inf, -math.inf, 1e308, -1e308, 2**64]


def named(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


CLASSES = {
    (group, preset.get("_target_", "")): _target(preset["_target_"], base, group)
    if "_target_" in preset
    else base
    for group, base in GROUPS.items()
    for preset in presets_of(group).values()
}


def ranged(kind: Any) -> bool:
    """Whether all numbers of a type have a range."""
    if get_origin(kind) is Annotated:
        return any(isinstance(rule, Range) for rule in kind.__metadata__)
    if get_origin(kind) in (Union, UnionType, tuple, dict):
        return all(ranged(one) for one in get_args(kind))
    return kind not in (int, float, Any)


def test_every_number_that_can_be_set_has_a_range():
    fields = {f"{cls.__name__}.{name}": kind for cls in {Experiment, *CLASSES.values()}
              for name, kind in hints(cls).items()}  # fmt: skip
    assert not [name for name, kind in fields.items() if not ranged(kind)]


def numeric(cls: type) -> list[str]:
    return [name for name, kind in hints(cls).items() if "Range" in str(kind)]


SETTINGS = sorted({
    (group, target, name)
    for (group, target), cls in CLASSES.items() for name in numeric(cls)
})  # fmt: skip


@pytest.mark.parametrize(("group", "target", "name"), SETTINGS)
def test_a_number_outside_of_its_range_is_one_line_that_names_key_value_and_range(
    make_plain, group, target, name
):
    for value in NO_NUMBERS:
        if name == "args" and isinstance(value, str):
            continue  # an argument of timm's may be any text
        config = make_plain(group, target)
        lists = name in ("mean", "std", "block")
        config[group][name] = [value] * 3 if lists else {"x": value} if name == "args" else value
        start = time.perf_counter()
        with pytest.raises(ConfigError) as error:
            read(config)
        assert time.perf_counter() - start < 1
        message = str(error.value)
        assert f"{group}.{name}" in message
        assert "\n" not in message
        assert len(message) < 300, message
        assert "range" in message or "not a whole number" in message or "not a finite number" in message


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, 1.5])
def test_a_seed_outside_of_its_range_is_refused(make_plain, value):
    with pytest.raises(
        ConfigError, match=r"^seed = .*(out of range: 0 to 18446744073709551615|whole number)"
    ):
        read(make_plain("prune", "") | {"seed": value})


def test_the_largest_seed_can_be_read_back(make):
    assert make(seed=2**64 - 1).plan["train"].config["seed"] == 2**64 - 1


@pytest.fixture
def make_plain(make):
    """The tiny experiment as plain dictionaries, with a preset of a class in a group."""
    import runpy
    from pathlib import Path

    tiny = runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))["TINY"]

    def build(group: str, target: str) -> dict[str, Any]:
        config: Any = OmegaConf.to_container(OmegaConf.create(tiny))
        if target:
            (preset, *_) = (p for p in presets_of(group).values() if p.get("_target_") == target)
            config[group] = {name: value for name, value in preset.items() if value != "???"}
        return config

    return build
