"""Credentials, and bearer tokens with their expiry. No I/O."""

import base64
import math
from dataclasses import dataclass, field

import msgspec

MAX_MARGIN_SECONDS = 60.0
MARGIN_SHARE = 0.1  # of the lifetime, so that even a token that is valid for three seconds is usable
MAX_SECRET_LENGTH = 8192  # more than common servers accept in a header


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Client id and secret from the account manager, used to fetch tokens (docs/api.md, "Authentication").

    Raises:
        ValueError: one of the two is empty, longer than 8,192 characters, surrounded by spaces, or has characters that
            OAuth does not allow (RFC 6749, A.1 and A.2), such as a line break that was copied with it.
    """

    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.client_id or not self.client_secret:
            raise ValueError("client id and client secret are both required, and one is empty")
        for name, value in (("id", self.client_id), ("secret", self.client_secret)):
            is_printable = value.isascii() and value.isprintable()
            if not is_printable or value != value.strip() or len(value) > MAX_SECRET_LENGTH:
                raise ValueError(
                    f"the client {name} contains a line break, spaces around it, more than {MAX_SECRET_LENGTH} "
                    "characters or a character outside ASCII: copy it again"
                )


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token from the user. It cannot be renewed: after it is rejected, every request fails.

    Raises:
        ValueError: it is empty, longer than 8,192 characters, or has characters that an HTTP header cannot hold.
    """

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        if not is_header_safe(self.token):
            raise ValueError(
                "the access token is empty or contains spaces, line breaks, "
                f"more than {MAX_SECRET_LENGTH} characters or a character outside ASCII: copy it again"
            )


def is_header_safe(token: str) -> bool:
    """Return whether a token can be sent in a header: visible ASCII of limited length."""
    return 0 < len(token) <= MAX_SECRET_LENGTH and all("!" <= character <= "~" for character in token)


class _Claims(msgspec.Struct):
    exp: float


def token_expiry(token: str) -> float | None:
    """Return the `exp` of a JWT in seconds since the epoch; None if it cannot be parsed.

    The signature is not verified: that is the server's task.
    """
    try:
        payload = token.split(".")[1]
        # Excess padding is ignored.
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=_Claims).exp
    except (IndexError, ValueError, msgspec.DecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A bearer token from the API.

    Attributes:
        value: the token.
        valid_until: when to renew it, in seconds since the epoch; infinite if it is used until it is rejected.
    """

    value: str = field(repr=False)
    valid_until: float

    @classmethod
    def received(cls, value: str, *, now: float) -> "Token":
        """Return a token that was received now; it is renewed a margin before it expires."""
        expiry = token_expiry(value)
        if expiry is None or expiry <= now:  # expired on arrival: the local clock is wrong, so wait for a 401
            return cls(value, math.inf)
        return cls(value, expiry - min(MAX_MARGIN_SECONDS, MARGIN_SHARE * (expiry - now)))
