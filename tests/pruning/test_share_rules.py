"""Who serves in a pruned adapter's place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pear_cli.config.choices import Effect, PruneBy, Scope, ShareRule
from pear_cli.config.settings import Prune
from pear_cli.errors import ConfigError, CorruptArtifact
from pear_cli.pruning.choose import Pruned, choose
from pear_cli.pruning.share_map import ShareMap
from pear_cli.pruning.share_rules import assign_owners
from pear_cli.scoring.importance import Importance, ScoredUnit


def importance(
    *scores: float, slots: tuple[str, ...] = ("q",), alike: dict[str, dict[str, float]] | None = None
) -> Importance:
    """Units `<block>.<slot>`."""
    units = tuple(
        ScoredUnit(f"{i // len(slots)}.{slot}", i // len(slots), slot, (slot, 8, 8), 10)
        for i in range(len(scores))
        for slot in (slots[i % len(slots)],)
    )
    if alike is None:
        pairs = {u.name: {k.name: 0.5 for k in units if k != u and k.group == u.group} for u in units}
        alike = pairs
    return Importance("taylor", units, scores, 1, None, alike)


def owners(found: Importance, rule: ShareRule, *pruned: int) -> list[int | None]:
    """Owner by block, for one slot."""
    share_map = assign_owners(found, Pruned(tuple(f"{b}.q" for b in pruned)), rule)
    return [None if owner is None else int(owner[0]) for owner in share_map.owners.values()]


def test_none_leaves_pruned_sites_without_an_owner() -> None:
    assert owners(importance(1, 5, 2, 9), ShareRule.none, 0, 2) == [None, 1, None, 3]


def test_top_lets_the_most_important_serve() -> None:
    assert owners(importance(1, 5, 2, 9), ShareRule.top, 0, 2) == [3, 1, 3, 3]


def test_ranked_pairs_the_least_with_the_most_important_round_robin() -> None:
    assert owners(importance(3, 9, 1, 8, 2), ShareRule.ranked, 0, 2, 4) == [1, 1, 1, 3, 3]
    assert owners(importance(0, 0, 0, 0), ShareRule.ranked, 0, 1) == [2, 3, 2, 3]


def test_nearest_goes_by_depth_and_then_by_importance() -> None:
    assert owners(importance(5, 0, 9, 1, 1, 6), ShareRule.nearest, 1, 3, 4) == [0, 2, 2, 2, 5, 5]
    assert owners(importance(5, 0, 5), ShareRule.nearest, 1) == [0, 0, 2]


def test_similar_goes_by_the_outputs_at_the_pruned_site_and_then_by_importance() -> None:
    alike = {"0.q": {"1.q": 0.1, "2.q": 0.9, "3.q": 0.2}, "1.q": {"0.q": 1.0, "2.q": 0.4, "3.q": 0.4}}
    assert owners(importance(0, 1, 5, 9, alike=alike), ShareRule.similar, 0, 1) == [2, 3, 2, 3]


def test_similar_without_similarities_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"lack the similarity of 0\.q and 1\.q"):
        owners(importance(0, 1, alike={}), ShareRule.similar, 0)


@pytest.mark.parametrize("rule", list(ShareRule))
def test_nothing_pruned_maps_every_site_to_itself(rule: ShareRule) -> None:
    assert owners(importance(1, 5, 2, 9), rule) == [0, 1, 2, 3]


scores = st.lists(st.integers(-3, 3).map(float), min_size=4, max_size=24).filter(lambda s: len(s) % 2 == 0)


@given(scores, st.floats(0, 1, exclude_max=True), st.sampled_from(ShareRule))
def test_every_map_is_idempotent_and_stays_inside_its_group(
    values: list[float], ratio: float, rule: ShareRule
) -> None:
    found = importance(*values, slots=("q", "v"))
    pruned = choose(found, Prune(ratio, PruneBy.count, Scope["global"], Effect.adapter, 1, 1))
    share_map = assign_owners(found, pruned, rule)
    assert list(share_map.owners) == [unit.name for unit in found.units]
    assert set(share_map.pruned) == set(pruned.units)
    for site, owner in share_map.owners.items():
        if owner is None:
            assert rule is ShareRule.none
            continue
        assert share_map.owners[owner] == owner
        assert owner[-1] == site[-1]
        assert site in share_map.served_by(owner)
    assert assign_owners(found, pruned, rule) == share_map
    assert ShareMap.from_json(json.loads(json.dumps(share_map.to_json(), sort_keys=True))) == share_map


GROUPS = {"0.q": ("q", 8, 8), "1.q": ("q", 8, 8), "0.v": ("v", 8, 8)}


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ({"0.q": "1.q", "1.q": "0.q", "0.v": None}, "pruned itself"),
        ({"0.q": "9.q", "1.q": "1.q", "0.v": None}, "no site of it"),
        ({"0.q": "0.q", "1.q": "1.q", "0.v": "0.q"}, "different groups"),
        ({"0.q": "0.q"}, "different sites"),
    ],
)
def test_what_is_no_share_map_is_refused(owners: dict[str, str | None], message: str) -> None:
    with pytest.raises(CorruptArtifact, match=message):
        ShareMap(owners, GROUPS, ShareRule.ranked)


@pytest.mark.parametrize("value", [None, {}, {"owners": 3}, {"owners": {"a": "a"}, "groups": {"a": [1]}}])
def test_json_that_is_no_share_map_is_refused(value: object) -> None:
    with pytest.raises(CorruptArtifact, match="not a share map"):
        ShareMap.from_json(value)
