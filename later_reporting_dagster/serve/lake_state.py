"""The files of the lake that a query reads: their versions, and which of them are missing; and the instances."""

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import day_ranges
from later_reporting_dagster.ingest.dimensions import instances_with_files, stored_instances
from later_reporting_dagster.ingest.missing_files import missing_days
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RAW_TABLES

DAYS_HEADER, INSTANCES_HEADER = "X-Later-Missing-Days", "X-Later-Missing-Instances"
MAX_LISTED = 100  # keeps the headers short enough for any client

_VERSION_BYTES = 12
_LIBRARIES = version("duckdb"), version("later-reporting-dagster")


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeState:
    """The files that a query reads.

    Attributes:
        version: Identifies the versions of the files.
        partitions: The partitions that exist.
        missing: Headers that name the days and instances of files that do not.
        unknown_instances: Requested instances of which nothing is known.
    """

    version: bytes
    partitions: Sequence[Partition] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    unknown_instances: Sequence[str] = ()


class LakeChanged(Exception):  # noqa: N818 - named for what happened
    """A file was replaced or removed between its listing and its read: inspect the files again."""


def version_of_files(lake: Lake, paths: Iterable[str]) -> bytes:
    """Return a digest of the current versions of some files, by path.

    It also depends on the versions of the libraries that decide the order of equal rows. If the filesystem does not
    report versions, the digest is random.
    """
    wanted = sorted(paths)
    versions = lake.storage.versions(wanted) if wanted else {}
    identities = [(path, versions[path].identity if path in versions else "") for path in wanted]
    if any(identity is None for _, identity in identities):
        return random_version()
    text = repr((identities, _LIBRARIES))
    return hashlib.blake2b(text.encode(), digest_size=_VERSION_BYTES).digest()


def random_version() -> bytes:
    """Return a version that no state of the files has."""
    return secrets.token_bytes(_VERSION_BYTES)


def missing_headers(
    days: Iterable[date], instance_ids: Collection[str], present: Iterable[Partition]
) -> Mapping[str, str]:
    """Return headers that list the days, as ranges, and the percent-encoded instances of which a file is missing.

    Without instances, these are the days without any file.
    """
    if not instance_ids:
        lacking = set(days) - {partition.day for partition in present}
        return {DAYS_HEADER: _listed(_ranges(lacking))} if lacking else {}
    missing = missing_days(days, instance_ids, present)
    if not missing:
        return {}
    lacking = {day for instance_days in missing.values() for day in instance_days}
    instances = [quote(instance_id, safe="") for instance_id in sorted(missing)]
    return {DAYS_HEADER: _listed(_ranges(lacking)), INSTANCES_HEADER: _listed(instances)}


def _ranges(days: Collection[date]) -> list[str]:
    return [text.replace(" to ", "/") for text in day_ranges(sorted(days))]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"


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
    """Return the instances that the table `instances` expects, and those with files that it does not know."""
    if known is None:
        return set(with_files)
    expected = set(known.filter(pc.field("expected_now"))["instance_id"].to_pylist())
    return expected | (set(with_files) - set(known["instance_id"].to_pylist()))


def unknown_instances(
    lake: Lake, known: pa.Table | None, requested: Collection[str], with_files: Collection[str] = ()
) -> list[str]:
    """Return the requested instances that neither have files nor are in the table `instances`."""
    unknown = set(requested) - set(with_files)
    if unknown and known is not None:
        unknown -= set(known["instance_id"].to_pylist())
    return sorted(unknown - instances_with_files(lake) if unknown else unknown)
