"""Which units go."""

import math
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pear_cli.config.choices import Effect, PruneBy, Scope
from pear_cli.config.settings import Prune
from pear_cli.errors import ConfigError
from pear_cli.pruning.choose import choose
from pear_cli.scoring.importance import Importance, ScoredUnit

GLOBAL = Scope["global"]


def importance(
    *scores: float, slots: tuple[str, ...] = ("attn.q",), sizes: tuple[int, ...] = ()
) -> Importance:
    """Units of ever deeper blocks, `slots` in each; `sizes` are their parameters."""
    units = []
    for i in range(len(scores)):
        block, slot = i // len(slots), slots[i % len(slots)]
        size = sizes[i] if sizes else 10
        units.append(ScoredUnit(f"blocks.{block}.{slot}", block, slot, (slot, 8, 8), size))
    return Importance("taylor", tuple(units), scores, 1, None, {})


def blocks(found: Importance, config: Prune) -> list[int]:
    """The blocks of the pruned units of a single slot, least important first."""
    return [int(site.split(".")[1]) for site in choose(found, config).units]


def by_count(ratio: float, scope: Scope = GLOBAL) -> Prune:
    return Prune(ratio, PruneBy.count, scope, Effect.adapter, 1, 1)


scores = st.lists(st.integers(-3, 3).map(float), min_size=4, max_size=24).filter(lambda s: len(s) % 2 == 0)
ratios = st.floats(0, 1, exclude_max=True)


def test_the_least_important_go_and_ties_break_in_site_order() -> None:
    assert blocks(importance(3, 1, 2, 0), by_count(0.5)) == [3, 1]
    assert blocks(importance(1, 1, 1, 1), by_count(0.5)) == [0, 1]
    assert blocks(importance(-1, 1, 0, -2), by_count(0.5)) == [3, 0]  # ablation ranks by its sign


def test_ratio_zero_prunes_nothing() -> None:
    for by in PruneBy:
        for scope in (GLOBAL, Scope.slot):
            assert choose(importance(0, 0, 0), Prune(0, by, scope, Effect.adapter, 1, 1)).units == ()


@given(scores, ratios, st.sampled_from([GLOBAL, Scope.slot, Scope.block]))
def test_k_units_go_in_every_scope_unless_a_group_needs_one(
    values: list[float], ratio: float, scope: Scope
) -> None:
    found = importance(*values, slots=("attn.q", "attn.v"))
    pruned = choose(found, by_count(ratio, scope))
    for unit in found.units:  # a group always keeps one
        assert any(u.group == unit.group and u.name not in pruned.units for u in found.units)
    names = [{GLOBAL: "", Scope.slot: unit.slot, Scope.block: str(unit.block)}[scope] for unit in found.units]
    for name in set(names):
        members = [unit.name for unit, inside in zip(found.units, names, strict=True) if inside == name]
        gone = [site for site in members if site in pruned.units]
        wanted = math.floor(Fraction(repr(ratio)) * len(members) + Fraction(1, 2))
        assert len(gone) <= wanted
        assert len(gone) == wanted or any("asks for" in note for note in pruned.notes)


@pytest.mark.parametrize(
    ("ratio", "units", "going"), [(0.29, 50, 15), (0.57, 50, 29), (0.5, 3, 2), (0.58, 25, 15)]
)
def test_k_is_of_the_decimal_that_was_written(ratio: float, units: int, going: int) -> None:
    assert len(choose(importance(*map(float, range(units))), by_count(ratio)).units) == going


@given(scores, ratios)
def test_the_pruned_are_less_important_than_the_kept(values: list[float], ratio: float) -> None:
    found = importance(*values)
    pruned = set(choose(found, by_count(ratio)).units)
    gone = [s for u, s in found.by_name().items() if u in pruned]
    kept = [s for u, s in found.by_name().items() if u not in pruned]
    assert kept
    assert max(gone, default=-math.inf) <= min(kept)


def test_a_group_that_would_lose_all_keeps_its_most_important_and_the_next_goes() -> None:
    found = importance(0, 9, 1, 8, 2, 7, slots=("attn.q", "attn.v"))
    pruned = choose(found, by_count(0.5))
    assert pruned.units == ("blocks.0.attn.q", "blocks.1.attn.q", "blocks.2.attn.v")
    assert "blocks.2.attn.q stays" in pruned.notes[0]


def test_a_group_spread_over_block_scopes_keeps_its_most_important() -> None:
    found = importance(0, 5, 2, 6, 1, 7, slots=("attn.q", "attn.v"))
    pruned = choose(found, by_count(0.5, Scope.block))
    assert set(pruned.units) == {"blocks.0.attn.q", "blocks.1.attn.v", "blocks.2.attn.q"}


def test_k_shrinks_and_says_so_where_no_unit_is_left() -> None:
    pruned = choose(importance(0, 1, 2, 3), by_count(0.9))
    assert len(pruned.units) == 3
    assert pruned.notes[-1].startswith("prune.ratio = 0.9 asks for 4 of the 4 units; 3 go")


def test_a_ratio_that_rounds_to_none_says_so() -> None:
    assert "rounds to none" in choose(importance(0, 1, 2), by_count(0.1)).notes[0]


def test_by_slot_every_slot_gives_the_same_share() -> None:
    found = importance(0, 9, 1, 8, 2, 7, 3, 6, slots=("attn.q", "attn.v"))
    assert set(choose(found, by_count(0.5, Scope.slot)).units) == {
        "blocks.0.attn.q",
        "blocks.1.attn.q",
        "blocks.3.attn.v",
        "blocks.2.attn.v",
    }


def test_by_block_needs_two_units_a_block() -> None:
    with pytest.raises(ConfigError, match=r"block needs at least two units.*blocks\.0\.attn\.q is alone"):
        choose(importance(0, 1), by_count(0.5, Scope.block))


def test_by_parameters_the_fewest_least_important_that_reach_the_ratio_go() -> None:
    found = importance(0, 1, 2, 3, sizes=(10, 50, 20, 20))
    assert blocks(found, Prune(0.1, PruneBy.parameters, GLOBAL, Effect.adapter, 1, 1)) == [0]
    assert blocks(found, Prune(0.11, PruneBy.parameters, GLOBAL, Effect.adapter, 1, 1)) == [0, 1]
    assert blocks(found, Prune(0.6, PruneBy.parameters, GLOBAL, Effect.adapter, 1, 1)) == [0, 1]
    pruned = choose(found, Prune(0.9, PruneBy.parameters, GLOBAL, Effect.adapter, 1, 1))
    assert len(pruned.units) == 3
    assert "asks for 90% of the parameters; 3 go" in pruned.notes[-1]


@given(st.integers(1, 99))
def test_by_parameters_equal_units_go_as_exactly_as_the_ratio_says(percent: int) -> None:
    found = importance(*range(100), sizes=(1,) * 100)
    assert (
        len(blocks(found, Prune(percent / 100, PruneBy.parameters, GLOBAL, Effect.adapter, 1, 1))) == percent
    )


def channels(*sizes: int) -> Importance:
    """Layers of so many channels, and the heads of an attention; the first of each is the least important."""
    units, found = [], []
    for layer, size in enumerate((*sizes, 3)):
        slot = "mlp.fc1" if layer < len(sizes) else "attn.qkv"
        for i in range(size):
            name = f"blocks.{layer}.{slot}.channels.{i}"
            units.append(ScoredUnit(name, layer, slot, (f"blocks.{layer}.{slot}", size, 0), 10))
            found.append(float(i))
    return Importance("taylor", tuple(units), tuple(found), 1, None, {})


@pytest.mark.parametrize(
    ("ratio", "left"), [(0.5, [16, 8, 1]), (0.75, [8, 8, 1]), (0.9, [8, 8, 1]), (0, [30, 12, 3])]
)
def test_every_layer_keeps_a_multiple_of_its_channels_but_for_heads(ratio: float, left: list[int]) -> None:
    found = channels(30, 12)
    config = Prune(ratio, PruneBy.count, Scope.block, Effect.adapter, 1, 8)
    gone = set(choose(found, config).units)
    for layer, kept in enumerate(left):
        units = [unit.name for unit in found.units if unit.block == layer]
        assert [name for name in units if name not in gone] == units[len(units) - kept :]


def test_rounding_that_misses_the_ratio_by_more_than_a_unit_says_so() -> None:
    def note(ratio: float, multiple: int) -> tuple[str, ...]:
        config = Prune(ratio, PruneBy.count, Scope.block, Effect.adapter, 1, multiple)
        return tuple(n for n in choose(channels(32, 32), config).notes if "is missed" in n)

    (said,) = note(0.9, 16)
    assert said == (
        "prune.ratio = 0.9 is missed, since layers keep multiples of prune.round_to = 16: "
        "16 instead of 29 of the 32 units of block 0; 16 instead of 29 of the 32 units of block 1"
    )
    assert note(0.5, 16) == ()  # 16 of 32
    assert note(0.53, 16) == ()  # 17: off by one
    assert note(0.9, 1) == ()


def test_layers_narrower_than_the_number_to_round_to_are_named() -> None:
    config = Prune(0.5, PruneBy.count, Scope.block, Effect.adapter, 1, 16)
    (note,) = (note for note in choose(channels(30, 12), config).notes if "is more" in note)
    assert note.startswith("prune.round_to = 16 is more than all channels of blocks.1.")
    assert "blocks.0" not in note


@given(st.integers(1, 9), ratios)
def test_rounding_leaves_multiples_or_whole_layers(multiple: int, ratio: float) -> None:
    found = channels(30, 12)
    gone = set(choose(found, Prune(ratio, PruneBy.count, GLOBAL, Effect.adapter, 1, multiple)).units)
    for layer, size in enumerate((30, 12)):
        kept = sum(unit.block == layer and unit.name not in gone for unit in found.units)
        assert kept == size or kept % multiple == 0


def test_an_attention_head_that_stays_is_called_a_head() -> None:
    name = "blocks.0.attn.qkv.channels.{}"
    units = tuple(ScoredUnit(name.format(i), 0, "attn.qkv", (name, 2, 0), 1) for i in range(2))
    found = choose(Importance("taylor", units, (1.0, 2.0), 1, None, {}), by_count(0.9))
    assert found.units == ("blocks.0.attn.qkv.channels.0",)
    assert found.notes[0].startswith("blocks.0.attn.qkv.heads.1 stays: it is the most important")


@pytest.mark.parametrize("by", PruneBy)
@pytest.mark.parametrize("scope", Scope)
def test_many_units_are_chosen_from_in_no_time(scope: Scope, by: PruneBy) -> None:
    places = [f"blocks.{block}.mlp.fc1" for block in range(8)]
    units = tuple(
        ScoredUnit(f"{place}.blocks.{i}", block, "mlp.fc1", (place, 1, 1), 4)
        for block, place in enumerate(places)
        for i in range(4000)
    )
    found = Importance("magnitude", units, tuple(range(len(units))), 0, None, {})
    start = time.process_time()
    gone = choose(found, Prune(0.5, by, scope, Effect.adapter, 1, 1)).units
    assert len(gone) == 16000
    assert time.process_time() - start < 5  # minutes where each unit is looked for among all
