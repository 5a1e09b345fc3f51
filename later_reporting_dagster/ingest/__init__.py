"""Plans the fewest queries for a set of partitions, and turns their answers into partitions of the lake."""

from later_reporting_dagster.ingest.ingest import Failed, Landed, Outcome, Source, ingest
from later_reporting_dagster.ingest.plan import narrower, partitions_of, plan

__all__ = [
    "Failed",
    "Landed",
    "Outcome",
    "Source",
    "ingest",
    "narrower",
    "partitions_of",
    "plan",
]
