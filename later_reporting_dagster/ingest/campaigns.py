"""The dimension `campaigns`: those that are or were listed, and which of them stay although a response lacks them."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import anyio.to_thread
import pyarrow as pa

from later_reporting_dagster.client import LaterClient, ListResult, QueryRejected
from later_reporting_dagster.contract import PerformanceQuery
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.contract.rows import BadRow, Campaign
from later_reporting_dagster.ingest.decide import NO_CAMPAIGNS, AskAgain, silent_instances
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.ingest.slices import Slice
from later_reporting_dagster.lake.campaign_owners import CampaignOwners
from later_reporting_dagster.lake.lake import Lake, StoredFile, WriteResult
from later_reporting_dagster.lake.tables import CAMPAIGN_COLUMNS, CAMPAIGNS_TABLE, schema_of

CAMPAIGNS_SCHEMA: pa.Schema = schema_of(CAMPAIGN_COLUMNS)


def campaigns_table(
    listed: Sequence[Campaign], *, previous: pa.Table | None, instance_ids: Collection[str], today: date
) -> pa.Table:
    """Return the dimension, sorted by instance and campaign: one row per campaign that is listed or was listed before.

    `instance_ids`: the instances whose listed campaigns are wanted; empty for all.
    """
    rows: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in previous.to_pylist() if previous is not None else []:
        rows[row["instance_id"], row["campaign_id"]] = row | {"listed_now": False}
    for campaign in listed:
        if instance_ids and campaign.instance_id not in instance_ids:
            continue
        first_seen = rows[campaign.key]["first_seen"] if campaign.key in rows else today
        fields = {name: getattr(campaign, name) for name in campaign.__struct_fields__}
        rows[campaign.key] = {**fields, "first_seen": first_seen, "last_seen": today, "listed_now": True}
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=CAMPAIGNS_SCHEMA)


def write_campaigns(
    lake: Lake, listed: Sequence[Campaign], bad_rows: Sequence[BadRow], *, instance_ids: Collection[str], today: date
) -> tuple[pa.Table, WriteResult]:
    """Update the dimension, and replace its quarantined rows by the bad rows of this listing."""
    outdated = lake.quarantine.files(CAMPAIGNS_TABLE)
    if bad_rows:
        path = lake.quarantine.path_of_query(CAMPAIGNS_TABLE, "campaigns", (today, today))
        lake.quarantine.write(path, bad_rows, query="campaigns")
        outdated = [file for file in outdated if file.path != path]

    def updated(stored: StoredFile) -> tuple[pa.Table, Mapping[str, str]]:
        previous = stored.intact_rows(CAMPAIGNS_SCHEMA)
        return campaigns_table(listed, previous=previous, instance_ids=instance_ids, today=today), {}

    rows, result = lake.update_table(CAMPAIGNS_TABLE, updated)
    for file in outdated:
        lake.storage.remove(file.path)
    return rows, result


@dataclass(frozen=True, slots=True)
class Absent:
    """What a response lacks of the stored campaigns.

    Attributes:
        kept: those whose stored row stays.
        silent: instances that were asked and are listed, and of which it has no campaign, although some are stored.
            These are among the kept ones, until the end of the run decides.
    """

    kept: Set[Hashable] = frozenset()
    silent: frozenset[str] = frozenset()

    @property
    def doubt(self) -> AskAgain | None:
        return silent_instances(sorted(self.silent), NO_CAMPAIGNS) if self.silent else None


@dataclass(eq=False, slots=True)
class KeptCampaigns:
    """Which stored campaigns stay although a response lacks them, because of their instances (`CampaignOwners`).

    Only for tables with the campaigns of all instances in one file.
    """

    client: LaterClient
    writer: SliceWriter
    instances: Instances
    _owners: CampaignOwners = field(init=False)
    _received: set[tuple[int, str | None]] = field(default_factory=set, init=False)  # of all responses of the run

    def __post_init__(self) -> None:
        self._owners = CampaignOwners(self.writer.files.lake)

    async def absent_from(
        self, slices: Sequence[Slice], query: PerformanceQuery, result: ListResult, *, gone: Set[str] = frozenset()
    ) -> Absent:
        """Return which stored campaigns of a day or period stay.

        They go if the response has others of their instance, which has thus been asked and has answered. Those of an
        unknown instance go if every known one is listed, was asked, and is not refused. Only `retire` takes an
        instance out of the rollups.

        `gone`: silent instances that surely have no campaigns.
        """
        table = self.writer.files.table
        if table.has_file_per_instance:
            return Absent()
        (of,) = slices
        received = {(item.campaign_id, item.extra) for item in result.items}
        self._received |= received
        present = {campaign_id for campaign_id, _ in received}
        columns = pa.schema([each for each in table.table.schema if each.name in ("campaign_id", "extra")])
        stored = await anyio.to_thread.run_sync(self._stored_rows, of, columns)
        absent = [(row["campaign_id"], row["extra"]) for row in stored if row["campaign_id"] not in present]
        if not absent:
            return Absent()
        owners = await anyio.to_thread.run_sync(self._owners.of, [*absent, *received])
        of_absent = {campaign_id: owners[campaign_id] for campaign_id, _ in absent}
        answered = _together(owners[campaign_id] for campaign_id in present)
        others = self.instances.marks.in_numbers(_together(of_absent.values()) - answered - gone)
        if query.instance_ids:
            answered, others = answered & {*query.instance_ids}, others & {*query.instance_ids}
        silent = frozenset(await self.client.accessible(tuple(sorted(others))))
        gone = answered | gone
        if self.writer.limits.accepts_any_loss:
            gone, silent = gone | silent, frozenset()
        kept = {campaign_id for campaign_id, names in of_absent.items() if names and not names & gone}
        unknown = {campaign_id for campaign_id, names in of_absent.items() if not names}
        if unknown and not await self._all_answer_without(unknown, query, answered=answered):
            kept |= unknown
        return Absent(kept, silent)

    def _stored_rows(self, of: Any, columns: pa.Schema) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.writer.files.stored_rows(of, columns).to_pylist()
        return rows

    async def answered(self) -> Set[str]:
        """Return the instances of which any response of the run had campaigns."""
        owners = await anyio.to_thread.run_sync(self._owners.of, self._received)
        return _together(owners.values())

    async def are_without(self, instance_ids: Collection[str], query: PerformanceQuery) -> bool:
        """Return whether a response for these instances alone says that they have no campaigns."""
        return (await self._fetch_of(instance_ids, query)).is_surely_empty

    async def _all_answer_without(
        self, campaigns: Set[Hashable], query: PerformanceQuery, *, answered: Set[str]
    ) -> bool:
        """Return whether each known instance is listed, was asked and answers without these campaigns.

        They may also be of one that is retired, or no longer configured. A query that names no instance leaves out
        those that are refused, so those without campaigns are asked alone.
        """
        known = self.instances.known
        names = tuple(sorted(known))
        is_asked = known <= {*query.instance_ids} if query.instance_ids else bool(known)
        if not is_asked or await self.client.accessible(names) != names:
            return False
        if not (others := known - answered):
            return True
        with suppress(QueryRejected):
            again = await self._fetch_of(others, query)
            return campaigns.isdisjoint(item.key for item in (*again.items, *again.bad_rows))
        return False

    async def _fetch_of(self, instance_ids: Collection[str], query: PerformanceQuery) -> ListResult:
        query = replace(query, instance_ids=tuple(sorted(instance_ids)))
        return await self.client.fetch(self.writer.files.table.route, query)


def _together(instances: Iterable[Set[str]]) -> frozenset[str]:
    return frozenset[str]().union(*instances)
