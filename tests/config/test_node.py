"""From a node to an object: what is wrong is named as the user wrote it."""

from dataclasses import dataclass

import pytest

from pear_cli.config.node import node
from pear_cli.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int


@dataclass(frozen=True)
class Outer:
    inner: Inner
    other: Inner | None
    names: tuple[str, ...]
    more: dict[str, float]


GOOD = {"inner": {"size": 1}, "other": None, "names": ["a"], "more": {"a": 1.0}}


def test_a_group_inside_a_node_is_a_node_itself():
    assert node(GOOD, Outer, "x") == Outer(Inner(1), None, ("a",), {"a": 1.0})
    assert node(GOOD | {"other": {"size": 2}}, Outer, "x").other == Inner(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": None}, "x.inner is None; it must be a group of settings"),
        ({"inner": {"size": "a"}}, "x.inner.size = a is not a whole number"),
        ({"other": {"sise": 2}}, "x.other has no setting 'sise'; did you mean \"size\"? settings: size"),
        ({"inner": {"size": ""}}, "x.inner.size is empty: write a value, or leave it out"),
        ({"names": "a"}, "x.names = a is not a list; write [a] with its brackets"),
        ({"names": [["a"]]}, "x.names = [['a']] is not a plain list of single values"),
        ({"more": [1]}, "x.more = [1] is not a group of settings, such as {a: 1}"),
        ({"more": {"a": float("nan")}}, "x.more.a = nan is not a finite number"),
        ({"extra": 1}, "x has no setting 'extra'; settings: inner, other, names, more"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change, message):
    with pytest.raises(ConfigError) as error:
        node(GOOD | change, Outer, "x")
    assert str(error.value) == message
