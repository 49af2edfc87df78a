"""The share map: owner(site), the adapter that serves there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pear_cli.config.choices import ShareRule
from pear_cli.errors import CorruptArtifact
from pear_cli.scoring.importance import Group
from pear_cli.store.decoding import decoding, text, whole


@dataclass(frozen=True)
class ShareMap:
    """A function owner(site) with owner(owner(s)) = owner(s).

    Args:
        owners: the home site of the adapter that serves at each site, in site order; None where the site is
            pruned and nothing serves.
        groups: the compatibility group of each site.
        rule: how the owners of pruned sites were found; None where that is not known.
        notes: what the reader of the result must know, in words.

    Raises:
        CorruptArtifact: an owner that is unknown, that does not own itself, or that is of another group.
    """

    owners: Mapping[str, str | None]
    groups: Mapping[str, Group]
    rule: ShareRule | None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if list(self.owners) != list(self.groups):
            raise CorruptArtifact("not a share map: owners and groups name different sites")
        for site, owner in self.owners.items():
            if owner is None:
                continue
            if owner not in self.owners:
                raise CorruptArtifact(f"not a share map: {site} is served by {owner}, which is no site of it")
            if self.owners[owner] != owner:
                raise CorruptArtifact(f"not a share map: {site} is served by {owner}, which is pruned itself")
            if self.groups[owner] != self.groups[site]:
                raise CorruptArtifact(
                    f"not a share map: {site} and its owner {owner} are of different groups"
                )

    @property
    def pruned(self) -> tuple[str, ...]:
        """The sites whose own adapter is gone, in site order."""
        return tuple(site for site, owner in self.owners.items() if owner != site)

    def served_by(self, owner: str) -> tuple[str, ...]:
        """The sites at which the adapter of `owner` serves, its own included, in site order."""
        return tuple(site for site, name in self.owners.items() if name == owner)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists; `from_json` reads them back."""
        return {
            "owners": dict(self.owners),
            "groups": {site: list(group) for site, group in self.groups.items()},
            "rule": self.rule and self.rule.value,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Any) -> "ShareMap":
        """Read what `to_json` wrote.

        Raises:
            CorruptArtifact: anything else.
        """
        with decoding("a share map"):
            groups = {}
            for site in value["owners"]:  # JSON may have sorted the one, not the other
                slot, width_in, width_out = value["groups"][site]
                groups[site] = (text(slot), whole(width_in), whole(width_out))
            owners = {site: None if owner is None else text(owner) for site, owner in value["owners"].items()}
            return cls(owners, groups, ShareRule(value["rule"]), tuple(map(text, value["notes"])))
