"""What a file of the lake says of itself, in the key-value metadata of its Parquet footer: read here, and nowhere else.

Nothing verifies these texts, as checksums verify rows. What cannot be what this project writes is damage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from typing import Annotated, Any

import msgspec

from later_reporting_dagster.contract.days import MAX_CLOCK_ERROR, utc_now
from later_reporting_dagster.lake.tables import FETCHED_MONTHS

# When the content of a fetched file was requested and, if it has replaced other content, the first such time.
FETCHED_AT, FIRST_FETCHED_AT = "fetched_at", "first_fetched_at"
# Of `coverage`: the hash of its rows without the times of requests.
HASH_WITHOUT_REQUESTS = "hash_without_requests"
CONTENT_HASH = "content_hash"
# Of a rollup: what it was made from.
MADE_FROM = "made_from"
# Of a fetched file: the queries, and the metrics that these requested.
QUERIES, METRICS = "queries", "metrics"
# Of a file of periods: the metrics that the API refused, with the day.
REFUSED_METRICS = "refused_metrics"
# Of what a run has recorded: what was odd about the responses, with how often.
ODDITIES = "oddities"


class MadeFrom(msgspec.Struct, frozen=True, kw_only=True):
    """What a file was made from.

    Attributes:
        inputs: a digest of the listed names, sizes and modification times (or ETags) of the files.
        definition: the version of the definition; see `RollupTable.definition`.
    """

    inputs: str
    definition: int

    @property
    def key_values(self) -> Mapping[str, str]:
        """The metadata of the file."""
        return {MADE_FROM: msgspec.json.encode(self).decode()}


@dataclass(frozen=True, slots=True)
class FetchedMonth:
    """A fetch of a month that had ended, of all instances together or an only one: its day, and whose rows it has."""

    day: date
    instances: list[str]


FetchedMonths = Mapping[date, FetchedMonth]


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """Metadata of a file, from its Parquet footer. What a file does not have is None, or empty.

    Attributes:
        content_hash: Hash of the rows, without `date`. See `content_hash_of`.
        key_values: the texts that were given when the file was written, to write them again.
        columns: the names of the columns.
    """

    rows: int
    content_hash: str = ""
    key_values: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    fetched_at: datetime | None = None
    first_fetched_at: datetime | None = None
    queries: Sequence[str] = ()
    metrics: Sequence[str] = ()
    hash_without_requests: str = ""
    made_from: MadeFrom | None = None
    oddities: Mapping[str, int] = field(default_factory=dict)
    refused_metrics: Mapping[str, date] = field(default_factory=dict)
    recorded_months: FetchedMonths | None = None
    months: FetchedMonths | None = None


def parse_key_values(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `FileMetadata` that have a text, or raise `ValueError` with the first that cannot be true.

    Other names are ignored: a newer release may write more.
    """
    values: dict[str, Any] = {}
    for name, read in _READERS.items():
        if (text := texts.get(name)) is not None:
            try:
                values[name] = read(text)
            # The last two of values that are very long or deep.
            except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
                raise ValueError(f"{name} in its metadata cannot be read: {error}") from error
    return values


@lru_cache(maxsize=1_024)  # A run has fetched many files at one instant.
def instant_text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds")


def _read_instant(text: str) -> datetime:
    written: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    instant = written.astimezone(UTC)
    if instant > utc_now() + MAX_CLOCK_ERROR:
        raise ValueError(f"{instant:%Y-%m-%d} is in the future")
    return instant


def _read_months(text: str) -> FetchedMonths:
    months: FetchedMonths = msgspec.json.decode(text, type=dict[date, FetchedMonth])
    if any(first_day.day != 1 for first_day in months):
        raise ValueError("a month begins on its first day")
    return months


def _json(type_: Any) -> Callable[[str], Any]:
    return partial(msgspec.json.decode, type=type_)


def _read_hash(text: str) -> str:
    # That of records is empty: nothing verifies their rows.
    digest: str = msgspec.convert(text, Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")])
    return digest


_READERS: Mapping[str, Callable[[str], Any]] = {
    CONTENT_HASH: _read_hash,
    FETCHED_AT: _read_instant,
    FIRST_FETCHED_AT: _read_instant,
    QUERIES: _json(list[str]),
    METRICS: _json(list[str]),
    HASH_WITHOUT_REQUESTS: _read_hash,
    MADE_FROM: _json(MadeFrom),
    REFUSED_METRICS: _json(dict[str, date]),
    ODDITIES: _json(dict[str, Annotated[int, msgspec.Meta(ge=0)]]),
    **dict.fromkeys(FETCHED_MONTHS.values(), _read_months),
}
