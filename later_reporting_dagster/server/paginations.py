"""Which snapshot a numbered page belongs to.

A cursor names its snapshot; a page number does not. So the first page that a session requests starts a pagination, and
the later pages of the same query belong to the latest pagination of the session: on the same connection, if the session
has several.
"""

from collections import OrderedDict
from collections.abc import Hashable

from later_reporting_dagster.server.post_store import Caller

MAX_PAGINATIONS = 10_000


class Paginations:
    """The snapshot versions of the latest paginations."""

    def __init__(self) -> None:
        self._versions: OrderedDict[Hashable, bytes] = OrderedDict()

    def start(self, query: Hashable, caller: Caller, version: bytes) -> None:
        """Remember the version that a pagination starts with."""
        for key in ((query, caller.session), (query, caller.session, caller.connection)):
            self._versions[key] = version
            self._versions.move_to_end(key)
        while len(self._versions) > MAX_PAGINATIONS:
            self._versions.popitem(last=False)

    def version_of(self, query: Hashable, caller: Caller) -> bytes | None:
        """Return the version of the pagination that a later page belongs to; None if it is unknown."""
        for key in ((query, caller.session, caller.connection), (query, caller.session)):
            if (version := self._versions.get(key)) is not None:
                self._versions.move_to_end(key)
                return version
        return None
