"""Whose a campaign is: totals of campaigns, and the lake's tables of them, are of all instances together."""

import json
from collections.abc import Iterable, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from later_reporting_dagster.lake.database import LakeDatabase, ViewContents, open_database
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_COLUMNS,
    CAMPAIGNS_TABLE,
    POST_COLUMNS,
    POSTS_NAMES,
    Table,
    schema_of,
)

_Owners = Mapping[int, Set[str]]


@dataclass(eq=False, slots=True)
class CampaignOwners:
    """The instances of campaigns, by one rule for what is fetched, rolled up and checked.

    They are those of the first source that names exactly one: the row itself (`instanceId`), the list of campaigns, the
    posts that were ever recorded in the campaign, also those of retired instances. Ids may be those of several
    instances: if each source that knows the campaign names several, they are those of the first. Of a campaign that
    nothing knows there are none.

    The list and the posts are read at most once, the posts only for campaigns that need them.
    """

    lake: Lake
    database: LakeDatabase | None = None  # that of the caller, whose copies are read, and whose views are replaced
    _listed: _Owners | None = field(default=None, init=False)
    _recorded: _Owners | None = field(default=None, init=False)

    def of(self, rows: Iterable[tuple[int, str | None]]) -> dict[int, frozenset[str]]:
        """Return the instances of each campaign, given by its id and the `extra` of its rows."""
        own: dict[int, set[str]] = {}
        for campaign_id, extra in rows:
            own.setdefault(campaign_id, set()).update(_named_by_row(extra))
        if self._listed is None:
            self._listed = _listed(self.lake)
        found = {}
        for campaign_id, names in own.items():
            sources = [names, self._listed.get(campaign_id, frozenset())]
            if not any(len(each) == 1 for each in sources):
                if self._recorded is None:
                    self._recorded = self._read_posts()
                sources.append(self._recorded.get(campaign_id, frozenset()))
            known = [frozenset(each) for each in sources if each]
            found[campaign_id] = next((each for each in known if len(each) == 1), known[0] if known else frozenset())
        return found

    def _read_posts(self) -> _Owners:
        """Return the instances of all posts that were recorded in each campaign. Unreadable files are left out."""
        tables = [Table(name, POST_COLUMNS) for name in POSTS_NAMES]
        sql = " UNION ".join(f"SELECT campaign_id, instance_id FROM {table.name}" for table in tables)  # noqa: S608

        def compute(_contents: ViewContents) -> _Owners:
            found: dict[int, set[str]] = {}
            for campaign_id, instance_id in database.connection.sql(sql).fetchall():
                found.setdefault(campaign_id, set()).add(instance_id)
            return found

        opened: AbstractContextManager[LakeDatabase]
        opened = open_database(self.lake) if self.database is None else nullcontext(self.database)
        with opened as database:
            return database.read([(table, self.lake.partitions(table.name)) for table in tables], compute)


def _named_by_row(extra: str | None) -> Iterable[str]:
    # The API sends it in a field without a column, since some day in one version, and not in the other.
    name = json.loads(extra).get("instanceId") if extra else None
    return [str(name)] if name not in (None, "") else []


def _listed(lake: Lake) -> _Owners:
    """Return the instances of each campaign in the list; of a list that is damaged, nothing."""
    found: dict[int, set[str]] = {}
    rows = lake.read_intact_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
    for row in [] if rows is None else rows.select(["campaign_id", "instance_id"]).to_pylist():
        found.setdefault(row["campaign_id"], set()).add(row["instance_id"])
    return found
