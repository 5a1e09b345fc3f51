"""What a response says about days and instances that a query includes and that are not in the lake."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

from later_reporting_dagster.contract.days import day_ranges
from later_reporting_dagster.ingest.missing_files import missing_days
from later_reporting_dagster.lake import Partition

DAYS_HEADER, INSTANCES_HEADER = "X-Later-Missing-Days", "X-Later-Missing-Instances"
MAX_LISTED = 100  # keeps the headers short enough for any client


@dataclass(frozen=True, slots=True)
class MissingFiles:
    """Files that a query would read and that do not exist.

    Attributes:
        days: Days on which at least one of the query's instances has no file.
        instance_ids: Instances that have no file on at least one of these days.
    """

    days: Sequence[date] = ()
    instance_ids: Sequence[str] = ()

    def headers(self) -> Mapping[str, str]:
        """Return the headers that list days, as ranges, and percent-encoded instances; none if nothing is missing."""
        if not self.days:
            return {}
        ranges = [text.replace(" to ", "/") for text in day_ranges([*self.days])]
        headers = {DAYS_HEADER: _listed(ranges)}
        if self.instance_ids:
            headers[INSTANCES_HEADER] = _listed([quote(instance_id, safe="") for instance_id in self.instance_ids])
        return headers


def find_missing(days: Iterable[date], instance_ids: Collection[str], present: Iterable[Partition]) -> MissingFiles:
    """Return what is missing of all days and instances. If there are no instances, days without files are missing."""
    if not instance_ids:
        return MissingFiles(sorted(set(days) - {partition.day for partition in present}))
    missing = missing_days(days, instance_ids, present)
    return MissingFiles(sorted({day for lacking in missing.values() for day in lacking}), sorted(missing))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"
