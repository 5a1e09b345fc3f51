"""The URL of a shared store, checked, and shown without its secrets."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from later_reporting_dagster.contract.redaction import redact

EXAMPLE = "postgresql://user:password@host:5432/database"


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """The URL of a PostgreSQL database.

    Attributes:
        text: the URL, with its secrets.

    Raises:
        ValueError: it is not such a URL. The message does not quote it, because it may contain a password.
    """

    text: str

    def __post_init__(self) -> None:
        if self.text.startswith(("redis:", "rediss:")):
            raise ValueError(
                f"Redis is not supported: use a PostgreSQL database, such as that of Dagster's storage: {EXAMPLE}"
            )
        try:
            parts = urlsplit(self.text)
            # An @ after the host: the password has an unescaped / ? or #, and what is before it looks like a port.
            rest = self.text.partition("://")[2].removeprefix(parts.netloc)
            is_valid = parts.scheme in ("postgresql", "postgres") and bool(parts.hostname) and "@" not in rest
            _ = parts.port
        except ValueError:
            is_valid = False
        if not is_valid or any(character <= " " for character in self.text):
            raise ValueError(
                f"must be empty, or a URL such as {EXAMPLE}; in user and password, write @ : / ? # as %40 %3A %2F %3F"
                " %23"
            )

    def __str__(self) -> str:
        """Return scheme, host, port and path, without user, password and options."""
        parts = urlsplit(self.text)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def redact(self, error: Exception) -> str:
        """Return the first line of an error without password and options of the URL."""
        parts = urlsplit(self.text)
        secrets = [parts.password or "", parts.query]
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return redact(lines[0], [*secrets, *map(unquote, secrets)])
