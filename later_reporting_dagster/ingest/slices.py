"""What is decided and replaced together: the file of a day and instance, or the rows of a period."""

from dataclasses import dataclass
from datetime import date

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import PUBLISHED_MONTH, RECORDED_MONTH

MONTHS = {RECORDED_MONTH: DateBasis.PERFORMANCE_DATE, PUBLISHED_MONTH: DateBasis.POST_DATE}

# Identifies a period in its table: a window by its name, whatever its days are; a month by its first day; of totals of
# an instance, also by that.
PeriodKey = tuple[str, date | None, str]


@dataclass(frozen=True, slots=True)
class Period:
    """The days of one query, and what the table calls them.

    Attributes:
        instance_ids: those of the query; empty for all that the credentials can read.
        subject: the only instance; empty for all together.
    """

    date_basis: DateBasis
    name: str
    first_day: date
    last_day: date
    instance_ids: tuple[str, ...] = ()
    subject: str = ""

    @property
    def day(self) -> date:
        return self.first_day

    @property
    def instance_id(self) -> None:
        """None: the rows of its query are all for it."""

    @property
    def key(self) -> PeriodKey:
        return period_key(self.name, self.first_day, self.subject)

    def __str__(self) -> str:
        return f"{self.name} {self.first_day} to {self.last_day}{f' of {self.subject}' * bool(self.subject)}"


def period_key(name: str, first_day: date, subject: str) -> PeriodKey:
    return name, first_day if name in MONTHS else None, subject


# A mapping by slices has keys of type Any, because those of `Mapping` are invariant.
Slice = Partition | Period


def subject_of(of: Slice) -> str | None:
    """Return the only instance whose rows a slice has; None if it has those of all."""
    return of.instance_id if isinstance(of, Partition) else of.subject or None
