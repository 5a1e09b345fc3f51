"""Partitions: a UTC day × an instance for what is fetched, a UTC day for what is rolled up."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster import AssetExecutionContext, MultiPartitionKey
from dagster_shared.check import CheckError

from later_reporting_dagster.lake import Partition, decode_instance_id, encode_instance_id
from later_reporting_dagster.rollups import Span, first_day_of

INSTANCES = dg.DynamicPartitionsDefinition(name="later_instance")

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"


def daily_partitions(start_date: date) -> dg.DailyPartitionsDefinition:
    """UTC days from `start_date` up to yesterday."""
    return dg.DailyPartitionsDefinition(start_date=start_date.isoformat(), timezone="UTC")


def span_partitions(span: Span, start_date: date) -> dg.TimeWindowPartitionsDefinition:
    """The days, or the ISO weeks or months from the one that `start_date` is in up to the one that is under way."""
    if span is Span.DAY:
        return daily_partitions(start_date)
    first = first_day_of(span, start_date).isoformat()
    if span is Span.WEEK:
        return dg.WeeklyPartitionsDefinition(start_date=first, day_offset=1, timezone="UTC", end_offset=1)
    return dg.MonthlyPartitionsDefinition(start_date=first, timezone="UTC", end_offset=1)


def daily_instance_partitions(start_date: date) -> dg.MultiPartitionsDefinition:
    """The grid of days × registered instances; a key reads `2024-01-03|instance_000`."""
    return dg.MultiPartitionsDefinition({"date": daily_partitions(start_date), "instance": INSTANCES})


def partition_key(partition: Partition) -> str:
    """The Dagster key of a lake partition."""
    day = partition.day.isoformat()
    if partition.instance_id is None:
        return day
    return MultiPartitionKey({"date": day, "instance": encode_instance_id(partition.instance_id)})


def lake_partition(key: str) -> Partition:
    """The lake partition of a Dagster key, of either kind."""
    day, separator, instance_key = key.partition("|")
    return Partition(
        day=date.fromisoformat(day),
        instance_id=decode_instance_id(instance_key) if separator else None,
    )


def newest_day(now: datetime) -> date:
    """The newest day that is over, in UTC: the last of the partitions."""
    return now.astimezone(UTC).date() - timedelta(days=1)


def lake_partitions(
    context: AssetExecutionContext, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> tuple[list[Partition], dict[str, str]]:
    """The partitions that a run is to fill, and the keys that name none, each with why.

    Raises:
        Failure: there are none of either, as in a range whose end comes before its start, or Dagster does not know
            them; or a day is not over, so that what is written of it would soon be wrong.
    """
    partitions: list[Partition] = []
    refused: dict[str, str] = {}
    for key in _partition_keys(context):
        try:
            partitions.append(lake_partition(key))
        except ValueError as error:
            refused[key] = (
                f"{error}: delete the partition, and register the instance by `later-reporting instances --sync`"
                " or the later_instances sensor"
            )
    if not partitions and not refused:
        tags = context.run.tags
        raise dg.Failure(
            f"The range {tags.get(RANGE_START_TAG)} to {tags.get(RANGE_END_TAG)} holds no partition: its end comes"
            " before its start. Days are ordered by date, instances by when they were registered.",
            allow_retries=False,
        )
    newest, last = newest_day(now()), max((partition.day for partition in partitions), default=date.min)
    if last > newest:
        raise dg.Failure(
            f"The day {last} is not over yet: the newest partition is {newest} (UTC). End the range there.",
            allow_retries=False,
        )
    return partitions, refused


def _partition_keys(context: AssetExecutionContext) -> Sequence[str]:
    tags = context.run.tags
    asked = f"{tags[RANGE_START_TAG]} to {tags[RANGE_END_TAG]}" if RANGE_START_TAG in tags else tags.get(PARTITION_TAG)
    if asked is None:
        raise dg.Failure("The run names no partition: pick those that it is to fill, or a range.", allow_retries=False)
    try:
        keys: Sequence[str] = context.partition_keys
    except (CheckError, dg.DagsterError, ValueError) as error:
        # Dagster's own words run over several lines, and each kind of range has others.
        raise dg.Failure(
            f"There is no partition {asked}: {' '.join(str(error).split())}. A key is a day, YYYY-MM-DD, or for posts"
            " a day and a registered instance, YYYY-MM-DD|instance.",
            allow_retries=False,
        ) from None
    return keys


def registered_instances(instance: dg.DagsterInstance) -> list[str]:
    """The ids of the registered instances, in the order of registration."""
    return [_instance_id(key) for key in registered_keys(instance)]


def registered_keys(instance: dg.DagsterInstance) -> list[str]:
    """The partition keys of the registered instances, in the order of registration."""
    return list(instance.get_dynamic_partitions(str(INSTANCES.name)))


def box_tags(start: date, end: date, instance_keys: Sequence[str]) -> dict[str, str]:
    """Run tags for the days `start` to `end`, inclusive, × `instance_keys`, which are contiguous as registered."""
    return {
        RANGE_START_TAG: f"{start.isoformat()}|{instance_keys[0]}",
        RANGE_END_TAG: f"{end.isoformat()}|{instance_keys[-1]}",
    }


def day_tags(start: date, end: date, *, span: Span = Span.DAY) -> dict[str, str]:
    """Run tags for the days `start` to `end`, inclusive, of what is rolled up, or for the weeks or months of them."""
    return {
        RANGE_START_TAG: first_day_of(span, start).isoformat(),
        RANGE_END_TAG: first_day_of(span, end).isoformat(),
    }


def contiguous_groups(wanted: Collection[str], registered: Sequence[str]) -> list[list[str]]:
    """`wanted` instance keys in the groups that a range can name: neighbours in the order of registration."""
    groups: list[list[str]] = []
    previous_wanted = False
    for key in registered:
        if key in wanted:
            if previous_wanted:
                groups[-1].append(key)
            else:
                groups.append([key])
        previous_wanted = key in wanted
    return groups


def instance_keys(instance_ids: Iterable[str]) -> list[str]:
    """The partition keys of instances, in their order.

    Raises:
        ValueError: an id that cannot be a partition.
    """
    return [encode_instance_id(instance_id) for instance_id in instance_ids]


def _instance_id(key: str) -> str:
    # A key that someone typed into the UI may be no encoding: it names itself, and is missed like any other instance.
    try:
        return decode_instance_id(key)
    except ValueError:
        return key
