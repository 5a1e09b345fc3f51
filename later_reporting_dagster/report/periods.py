"""The periods that the report offers, each beside the one before it.

Days are told by their age: 0 is the newest day that has landed. The report keeps sums by *span* of ages rather than by
day, where the spans are cut so that every period, and the one before each, is made of whole spans.
"""

from bisect import bisect_right
from collections.abc import Sequence

PERIODS: Sequence[int] = (7, 28, 90, 365)
# The age at which each span ends, exclusive: that of every period, and of the one before it.
SPAN_ENDS: Sequence[int] = sorted({end for days in PERIODS for end in (days, 2 * days)})
# Older days are in no period.
MAXIMUM_DAYS = SPAN_ENDS[-1]


def span_of(age: int) -> int:
    """The number of the span that a day of this age is in."""
    return bisect_right(SPAN_ENDS, age)


def spans_of(days: int) -> range:
    """The spans that make up the newest `days` days, which are one of `PERIODS`."""
    return range(SPAN_ENDS.index(days) + 1)


def spans_before(days: int) -> range:
    """The spans that make up as many days before those."""
    return range(SPAN_ENDS.index(days) + 1, SPAN_ENDS.index(2 * days) + 1)


def default_period(days: int) -> int:
    """What a report over `days` days opens with: four weeks, or one while there are no two times four to compare."""
    return 28 if days >= 2 * 28 else 7
