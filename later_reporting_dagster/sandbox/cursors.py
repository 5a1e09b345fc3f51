"""Opaque cursors: each leads to one place in the answer to one query, and is refused with any other."""

import base64
import hashlib

from later_reporting_dagster.sandbox.problems import invalid

_PLACE_BYTES, _MARK_BYTES = 6, 12


def issue(start: int, *, belongs_to: str) -> str:
    """A cursor to the row that so many others of the query's answer stand before."""
    place = start.to_bytes(_PLACE_BYTES, "big")
    return base64.urlsafe_b64encode(place + _mark(place, belongs_to)).decode()


def read(cursor: str, *, belongs_to: str) -> int:
    """Where a cursor leads.

    Raises:
        Refusal: 400 `ANL_00400`: it was not issued here, or for another query.
    """
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        data = b""
    place, mark = data[:_PLACE_BYTES], data[_PLACE_BYTES:]
    if mark != _mark(place, belongs_to):
        raise invalid("nextCursor is invalid, has expired, or belongs to a query with other parameters")
    return int.from_bytes(place, "big")


def _mark(place: bytes, belongs_to: str) -> bytes:
    return hashlib.blake2b(place + belongs_to.encode("utf-8", "surrogatepass"), digest_size=_MARK_BYTES).digest()
