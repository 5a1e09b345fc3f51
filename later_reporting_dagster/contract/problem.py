"""The service's error answers: `application/problem+json`, told apart by `type`."""

from enum import StrEnum

import msgspec


class ProblemType(StrEnum):
    """Known problem types [D]. `INVALID_SORT` arrives with HTTP 400, not 422."""

    VALIDATION = "ANL_00400"
    INVALID_SORT = "ANL_00422"
    UNAUTHORIZED = "ANL_00401"
    FORBIDDEN = "ANL_00403"
    NOT_FOUND = "ANL_00404"
    INTERNAL = "ANL_00500"
    INVALID_CLIENT_CREDENTIALS = "INVALID_CLIENT_CREDENTIALS"


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
        except (msgspec.DecodeError, UnicodeDecodeError):
            return cls()

    def __str__(self) -> str:
        return " ".join(part for part in (self.type, self.title, self.detail) if part) or "no problem document"
