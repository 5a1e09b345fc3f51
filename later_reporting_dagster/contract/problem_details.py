"""Error bodies of the API: `application/problem+json`, distinguished by `type` (docs/api.md, "Errors")."""

from collections.abc import Collection

import msgspec

from later_reporting_dagster.contract.redaction import redact

MAX_TEXT_LENGTH = 1000  # `detail` may name every metric, and `ingest.metric_search` looks for these names in it


class ProblemDetails(msgspec.Struct, frozen=True):
    """Body of an error response.

    `detail` is written for people and may change. Decisions must not depend on it, with one exception: whether the
    metrics are the reason why a query is rejected, and in which groups they are requested next. Nothing else in a
    response shows that.
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
