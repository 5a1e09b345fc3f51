"""The dimension `campaigns`: those that are or were listed, and which of them stay although a response lacks them."""

from collections.abc import Collection, Hashable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import anyio.to_thread
import pyarrow as pa

from later_reporting_dagster.client import LaterClient, ListResult, QueryRejected
from later_reporting_dagster.contract import PerformanceQuery
from later_reporting_dagster.contract.rows import BadRow, Campaign
from later_reporting_dagster.ingest.decide import keys_of
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.ingest.slices import Slice
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


@dataclass(eq=False, slots=True)
class KeptCampaigns:
    """Which stored campaigns stay although a response lacks them, because of their instances.

    Only for tables whose rows do not say their instance: it is that of the dimension.
    """

    client: LaterClient
    writer: SliceWriter
    _instances: Mapping[Hashable, Set[str]] | None = None  # of each known campaign, read once in a run

    async def absent_from(self, slices: Sequence[Slice], query: PerformanceQuery, result: ListResult) -> Set[Hashable]:
        """Return the campaigns of instances that were not asked for, are not listed any more, or may be left out.

        Of the last, nothing came of any campaign, and a second response does not say that there is nothing. Only
        `retire` takes an instance out of the rollups.
        """
        if self.writer.files.table.has_file_per_instance:
            return frozenset()
        (of,) = slices
        present = {item.key for item in result.items}
        instances, stored = await anyio.to_thread.run_sync(self._read, of)
        absent = {campaign: instances[campaign] for campaign in stored - present if campaign in instances}
        returned = {name for campaign in present for name in instances.get(campaign, ())}
        silent = {name for names in absent.values() for name in names} - returned
        if query.instance_ids:
            returned, silent = returned & {*query.instance_ids}, silent & {*query.instance_ids}
        listed = await self.client.accessible(tuple(sorted(silent)))
        # If the whole response is empty, the writer is in doubt, and asks again itself.
        is_asked = listed and result.items and not self.writer.limits.accepts_any_loss
        if is_asked and not await self._are_without(listed, query):
            self.writer.progress.warn(f"Not in a response, so their stored campaigns stay: {', '.join(listed)}")
            listed = ()
        gone = returned.union(listed)
        return {campaign for campaign, names in absent.items() if not names & gone}

    def _read(self, of: Any) -> tuple[Mapping[Hashable, Set[str]], Set[Hashable]]:
        """Return the instances of each known campaign, and the stored campaigns of a day or period."""
        files = self.writer.files
        if self._instances is None:
            self._instances = _instances_of_campaigns(files.lake)
        keys = pa.schema([each for each in files.table.table.schema if each.name in files.table.key])
        return self._instances, {*keys_of(files.stored_rows(of, keys), files.table.key)}

    async def _are_without(self, instance_ids: tuple[str, ...], query: PerformanceQuery) -> bool:
        """Return whether a response for these instances alone says that they have no campaigns."""
        with suppress(QueryRejected):
            again = await self.client.fetch(self.writer.files.table.route, replace(query, instance_ids=instance_ids))
            return again.is_surely_empty
        return False


def _instances_of_campaigns(lake: Lake) -> Mapping[Hashable, Set[str]]:
    instances: dict[Hashable, set[str]] = {}
    campaigns = lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA)
    for row in [] if campaigns is None else campaigns.select(["campaign_id", "instance_id"]).to_pylist():
        instances.setdefault(row["campaign_id"], set()).add(row["instance_id"])
    return instances
