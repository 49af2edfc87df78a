"""Canonical JSON and keys: the same configuration has one text, different ones have different texts."""

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pear_cli.errors import ConfigError
from pear_cli.store.canonical import SCHEMA, canonical, make_key, plain, to_node


class Precision(Enum):
    float32 = "float32"


@dataclass(frozen=True)
class LoRA:
    rank: int = 8
    scale: float = 1.0


@dataclass(frozen=True)
class Bottleneck:
    rank: int = 8
    scale: float = 1.0


@dataclass(frozen=True)
class Root:
    method: LoRA | Bottleneck = field(default_factory=LoRA)
    slots: tuple[str, ...] = ("attn.q", "attn.v")
    precision: Precision = Precision.float32


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@given(values)
def test_canonical_json_is_json_and_canonical_again(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text
    text.encode("ascii")


@given(st.dictionaries(st.text(), values, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_exactly_and_any_way_to_write_it_is_the_same(number: float) -> None:
    text = canonical(number)
    assert float(text) == number
    assert canonical(float(f"{number:.17e}")) == text


@given(values, values)
def test_values_that_differ_have_different_texts(one: Any, other: Any) -> None:
    if plain(one) != plain(other):
        assert canonical(one) != canonical(other)


def test_spellings_of_one_number_are_one_text() -> None:
    assert canonical(1e-3) == canonical(0.001) == canonical(0.1e-2) == "0.001"
    assert canonical(-0.0) == canonical(0.0) == "0.0"
    assert canonical(2**53 + 1) == "9007199254740993"
    assert canonical(True) == "true"
    assert canonical(1) != canonical(1.0)


def test_a_dataclass_is_its_fields_whatever_its_class_is_called_and_wherever_it_lies() -> None:
    assert json.loads(canonical(Root())) == {
        "method": {"rank": 8, "scale": 1.0},
        "slots": ["attn.q", "attn.v"],
        "precision": "float32",
    }
    assert canonical(Root()) == canonical(json.loads(canonical(Root())))


def test_nodes_of_methods_with_equal_fields_stay_apart_by_their_targets() -> None:
    assert to_node(LoRA()) == {"_target_": f"{__name__}.LoRA", "rank": 8, "scale": 1.0}
    assert to_node(LoRA(), "scale") == {"_target_": f"{__name__}.LoRA", "rank": 8}
    assert canonical(to_node(LoRA())) != canonical(to_node(Bottleneck()))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_by_its_dotted_name(number: float) -> None:
    with pytest.raises(ConfigError, match=r"^optim\.lr\[1\] = (nan|inf|-inf) is not a finite number$"):
        canonical({"lr": [0.1, number]}, "optim")


@pytest.mark.parametrize("value", [Path("/data"), {1, 2}, b"x", 1j, object(), LoRA, {1: 2}, {None: 1}])
def test_what_means_nothing_on_another_machine_or_has_no_order_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.root"):
        canonical({"root": value}, "dataset")


def key(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "stage": "train", "version": 1, "config": Root(), "inputs": {"dense": "a"}, "data": {"train": "b"},
        "backbone": "c",
    }  # fmt: skip
    return make_key(**(arguments | changes))


def test_a_key_is_32_hex_digits_of_the_sha256_of_its_canonical_identity() -> None:
    identity = {
        "schema": SCHEMA, "stage": "train", "version": 1, "config": Root(), "inputs": {"dense": "a"},
        "data": {"train": "b"}, "backbone": "c",
    }  # fmt: skip
    assert key() == hashlib.sha256(canonical(identity).encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "eval"}, {"version": 2}, {"config": replace(Root(), slots=("attn.q",))}, {"inputs": {}},
        {"inputs": {"score": "a"}}, {"data": {"train": "x"}}, {"backbone": "x"},
    ],
)  # fmt: skip
def test_each_argument_of_a_key_changes_it(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_keys_and_the_store_need_neither_torch_nor_omegaconf() -> None:
    code = (
        "import sys, pear_cli.store.store; print(sorted({'torch', 'omegaconf', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
