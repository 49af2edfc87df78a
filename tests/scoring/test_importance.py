"""What scoring stores."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pear_cli.errors import CorruptArtifact
from pear_cli.scoring.importance import Importance, ScoredUnit

UNITS = tuple(ScoredUnit(f"blocks.{b}.attn.q", b, "attn.q", ("attn.q", 8, 8), 32) for b in range(3))
FOUND = Importance(
    criterion="taylor",
    units=UNITS,
    scores=(0.1, 1 / 3, -2.0),
    images=64,
    kendall_tau=0.5,
    similarity={UNITS[0].name: {UNITS[1].name: 0.25}},
)


def test_importance_survives_json() -> None:
    assert Importance.from_json(json.loads(json.dumps(FOUND.to_json(), sort_keys=True))) == FOUND


def test_units_stand_by_importance_with_ties_in_site_order() -> None:
    tied = replace(FOUND, scores=(1.0, 0.0, 1.0))
    assert [unit.block for unit in tied.ascending()] == [1, 0, 2]
    assert [unit.block for unit in tied.descending()] == [0, 2, 1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v.pop("units"),
        lambda v: v["units"][0].update(score="high"),
        lambda v: v["units"][0].update(score=float("nan")),
        lambda v: v["units"][0].update(name="blocks.1.attn.q"),
        lambda v: v["units"][0].update(group=["attn.q", 8]),
        lambda v: v["units"][0].update(parameters=1.5),
        lambda v: v["units"].append(3),
        lambda v: v.update(kendall_tau=2),
        lambda v: v.update(similarity=[]),
        lambda v: v.update(similarity={"elsewhere": {"blocks.0.attn.q": 1.0}}),
        lambda v: v["similarity"]["blocks.0.attn.q"].update({"blocks.1.attn.q": 1.5}),
    ],
)
def test_nonsense_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(json.dumps(FOUND.to_json()))
    spoil(value)
    with pytest.raises(CorruptArtifact, match="not an importance"):
        Importance.from_json(value)


def test_a_similarity_between_two_groups_is_refused() -> None:
    other = replace(UNITS[1], group=("attn.v", 8, 8))
    with pytest.raises(CorruptArtifact, match="a similarity between"):
        replace(FOUND, units=(UNITS[0], other, UNITS[2]))


def test_scores_share_maps_and_choices_need_no_torch() -> None:
    code = (
        "import sys, pear_cli.scoring.importance, pear_cli.pruning.choose, pear_cli.pruning.share_rules;"
        "import pear_cli.pruning.preservable; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_parts_of_a_layer_are_one_entry_and_older_files_with_one_each_are_read() -> None:
    units = tuple(
        ScoredUnit(f"{site}.blocks.{i}", 0, "mlp.fc1", (site, 2, 2), 4) for site in "ab" for i in range(4)
    )
    found = replace(FOUND, units=units, scores=tuple(map(float, range(8))), similarity={})
    stored = json.loads(json.dumps(found.to_json()))
    assert [entry["scores"] for entry in stored["units"]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert Importance.from_json(stored) == found
    single = [{**vars(u), "group": list(u.group), "score": float(i)} for i, u in enumerate(units)]
    assert Importance.from_json({**stored, "units": single}) == found
    some = replace(found, units=units[1:5], scores=(1.0, 2.0, 3.0, 4.0))
    assert Importance.from_json(some.to_json()) == some
