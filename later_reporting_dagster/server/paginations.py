"""Which snapshot a numbered page belongs to.

A cursor names its snapshot; a page number does not. So the first page that a session requests starts a pagination, and
a later page of the same query belongs to the latest pagination of the session. With one exception: if a connection has
read a pagination from its first page on, alone and in order, then the next page on it belongs to that pagination, even
if the session has started another one on another connection.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from later_reporting_dagster.server.post_store import Caller
from later_reporting_dagster.server.query_parameters import PageRequest

MAX_PAGINATIONS, MAX_CONNECTIONS = 10_000, 64

_Connection = tuple[str, int]


@dataclass(slots=True)
class _Sequence:
    """Pages that a connection reads in order, but not all of them yet."""

    version: bytes
    next_offset: int
    rows: int


@dataclass(slots=True)
class _Session:
    """The paginations of a query in a session."""

    latest: bytes
    sequences: "OrderedDict[_Connection, _Sequence]" = field(default_factory=OrderedDict)


class Paginations:
    """The snapshot versions of the latest paginations."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def start(self, query: Hashable, caller: Caller, page: PageRequest, *, version: bytes, rows: int) -> None:
        """Remember the version and the number of rows of a pagination, of which a page is read first."""
        key = _key(query, caller)
        session = self._sessions.setdefault(key, _Session(version))
        self._sessions.move_to_end(key)
        session.latest = version
        session.sequences.pop(caller.connection, None)
        if page.offset == 0 and page.size < rows:
            session.sequences[caller.connection] = _Sequence(version, page.size, rows)
        if len(session.sequences) > MAX_CONNECTIONS:
            session.sequences.popitem(last=False)
        if len(self._sessions) > MAX_PAGINATIONS:
            self._sessions.popitem(last=False)

    def version_of(self, query: Hashable, caller: Caller, page: PageRequest) -> bytes | None:
        """Return the version of the pagination that a later page belongs to; None if it is unknown."""
        key = _key(query, caller)
        session = self._sessions.get(key)
        if session is None:
            return None
        self._sessions.move_to_end(key)
        sequence = session.sequences.get(caller.connection)
        if sequence is not None and sequence.next_offset == page.offset:
            sequence.next_offset += page.size
            if sequence.next_offset >= sequence.rows:
                del session.sequences[caller.connection]
            return sequence.version
        # The latest pagination is read on several connections, or not in order.
        for connection in [each for each, other in session.sequences.items() if other.version == session.latest]:
            del session.sequences[connection]
        session.sequences.pop(caller.connection, None)
        return session.latest


def _key(query: Hashable, caller: Caller) -> bytes:
    """Return a digest: a query can have thousands of ids."""
    return hashlib.blake2b(repr((query, caller.session)).encode(), digest_size=16).digest()
