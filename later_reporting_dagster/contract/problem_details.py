"""The service's error answers: `application/problem+json`, told apart by `type`."""

from collections.abc import Collection

import msgspec

from later_reporting_dagster.contract.redaction import excerpt

LONGEST_TEXT = 1000  # it may name every metric that there is, and all of them are read


class Problem(msgspec.Struct, frozen=True):
    """What the service says went wrong. `detail` is for people and may change: never branch on it [D]."""

    type: str = ""
    title: str = ""
    detail: str = ""

    @classmethod
    def from_body(cls, body: bytes) -> "Problem":
        """Reads an error body; one that is no problem document reads as an empty problem."""
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return cls()

    def excerpt(self, secrets: Collection[str]) -> "Problem":
        """Return the same with each text as `contract.excerpt` makes it."""
        return Problem(*(excerpt(text, secrets, limit=LONGEST_TEXT) for text in (self.type, self.title, self.detail)))

    def __str__(self) -> str:
        return " ".join(part for part in (self.type, self.title, self.detail) if part) or "no problem document"
