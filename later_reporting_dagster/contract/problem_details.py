"""Error bodies of the API: `application/problem+json`, distinguished by `type` (docs/api.md, "Errors")."""

from collections.abc import Collection

import msgspec

from later_reporting_dagster.contract.redaction import redact

MAX_TEXT_LENGTH = 1000  # `detail` may name every metric, and each of these names is parsed


class ProblemDetails(msgspec.Struct, frozen=True):
    """Body of an error response.

    `detail` is written for people and may change. Decisions must not depend on it, with one exception: how rejected
    metrics are fetched next, because nothing else shows which metrics the API rejects.
    """

    type: str = ""
    title: str = ""
    detail: str = ""

    @classmethod
    def from_body(cls, body: bytes) -> "ProblemDetails":
        """Parse an error body; return empty problem details if the body has none."""
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return cls()

    def redact(self, secrets: Collection[str]) -> "ProblemDetails":
        """Return a copy whose texts are shortened and without secrets (see `redaction.redact`)."""
        texts = (self.type, self.title, self.detail)
        return ProblemDetails(*(redact(text, secrets, limit=MAX_TEXT_LENGTH) for text in texts))

    def __str__(self) -> str:
        return " ".join(part for part in (self.type, self.title, self.detail) if part) or "without problem details"
