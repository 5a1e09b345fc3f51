"""Which instances a step fetches, expects and asks totals of, and which are in the numbers. One answer for all."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of a lake, which decide alone whose files and rows are in the numbers.

    They are part of `Instances`, for whoever reads some files and need not know which others there are.

    Attributes:
        retired: those that are marked as retired.
    """

    retired: frozenset[str] = frozenset()

    def is_in_numbers(self, instance_id: str | None) -> bool:
        """Return whether what the lake has of an instance is in the numbers; None is what is of all together."""
        return instance_id not in self.retired

    def in_numbers(self, instance_ids: Iterable[str]) -> frozenset[str]:
        """Return which of some instances are in the numbers, if the lake has anything of them."""
        return frozenset(filter(self.is_in_numbers, instance_ids))


NO_MARKS = Marks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """The instances of a step, made at its start from the setting, the list of the API, the lake and the marks.

    Three sets are used, for three questions: `to_fetch`, `expected` and `in_numbers`. Numbers follow the lake alone:
    with a setting in them, two processes with other settings would rewrite each other's rollups for ever.

    What the API refuses is the outcome of a query, and no part of this.

    Attributes:
        configured: those of LATER_INSTANCE_IDS; empty if it is not set.
        listed: those that the API lists; None if that is not known.
        seen: those that it has ever listed.
        stored: those with a file of posts.
        marks: which are retired.
    """

    configured: frozenset[str] = frozenset()
    listed: frozenset[str] | None = None
    seen: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()
    marks: Marks = NO_MARKS

    @property
    def retired(self) -> frozenset[str]:
        """Those that are marked as retired."""
        return self.marks.retired

    def limited_to(self, instance_ids: Collection[str]) -> Self:
        """Return those of a run that fetches only these; without any, the same."""
        return replace(self, configured=frozenset(instance_ids)) if instance_ids else self

    @property
    def known(self) -> frozenset[str]:
        """All that have been named by anything."""
        return self.configured | (self.listed or frozenset()) | self.seen | self.stored | self.retired

    @property
    def to_fetch(self) -> frozenset[str]:
        """Those that are requested. Empty without a setting and a list: then nothing can be fetched."""
        return (self.configured or self.listed or frozenset()) - self.retired

    @property
    def filter(self) -> tuple[str, ...]:
        """The ids that a query for all of them names; empty if it is for all that the credentials can read."""
        return tuple(sorted(self.to_fetch)) if self.configured else ()

    @property
    def expected(self) -> frozenset[str]:
        """Those that a complete day has. One that is no longer listed stays: a list may be wrong for an hour."""
        return (self.configured or self.seen | self.stored | (self.listed or frozenset())) - self.retired

    @property
    def in_numbers(self) -> frozenset[str]:
        """Those that rollups, the report and `serve` are about."""
        return self.marks.in_numbers(self.stored)

    @property
    def unlisted(self) -> frozenset[str]:
        """Expected ones that the API does not list; empty if the list is not known."""
        return frozenset() if self.listed is None else self.expected - self.listed

    @property
    def not_expected(self) -> frozenset[str]:
        """Those that are in the numbers, and no longer fetched, because LATER_INSTANCE_IDS does not name them."""
        return self.in_numbers - self.expected

    @property
    def of_all(self) -> frozenset[str]:
        """Those whose common totals are requested; empty if they would not be those of all expected ones."""
        is_whole = len(self.to_fetch) > 1 and self.to_fetch == self.expected and not self.unlisted
        return self.to_fetch if is_whole else frozenset()

    @property
    def of_total(self) -> frozenset[str]:
        """Those whose total is that of the account: all together, or the only one."""
        return self.of_all or frozenset({self.only} if self.only else ())

    @property
    def only(self) -> str | None:
        """The one that is expected, if it is one: its own totals are those of all."""
        return next(iter(self.expected)) if len(self.expected) == 1 else None
