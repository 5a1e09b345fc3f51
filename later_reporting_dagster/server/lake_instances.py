"""The instances of a lake, from the table `instances` and the files of the raw tables."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.ingest.dimensions import instances_with_files, stored_instances
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.raw_tables import RAW_TABLES


def all_instances(lake: Lake) -> list[str]:
    """Return the ids of the instances that the API lists or that have files, sorted.

    Without the table `instances`, these are the instances that have a file in a raw table.
    """
    stored = stored_instances(lake)
    if stored is None:
        return sorted(instances_with_files(lake))
    served = stored["listed_now"]
    for table in RAW_TABLES:
        served = pc.or_(served, pc.is_valid(stored[f"{table.name}_newest_day"]))
    return sorted(stored.filter(served)["instance_id"].to_pylist())


def expected_instances(known: pa.Table | None, with_files: Collection[str]) -> set[str]:
    """Return the instances that should have a file on each day: those that the table `instances` expects.

    Args:
        known: The table `instances`; None if the lake does not have it.
        with_files: Instances that have files; those that the table does not know are expected too.
    """
    if known is None:
        return set(with_files)
    expected = set(known.filter(pc.field("expected_now"))["instance_id"].to_pylist())
    return expected | (set(with_files) - set(known["instance_id"].to_pylist()))


def unknown_instances(lake: Lake, requested: Collection[str], with_files: Collection[str]) -> list[str]:
    """Return the requested instances that neither have files nor are known from before."""
    unknown = set(requested) - set(with_files)
    if unknown and (stored := stored_instances(lake)) is not None:
        unknown -= set(stored["instance_id"].to_pylist())
    if unknown:
        unknown -= instances_with_files(lake)
    return sorted(unknown)
