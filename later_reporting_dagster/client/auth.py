"""Credentials, bearer tokens with their expiry, and the base URL to which they may be sent. No I/O."""

import base64
import ipaddress
import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import httpx
import msgspec

_Decoded = TypeVar("_Decoded")


# Only what a socket accepts: httpx would read spaces and escapes as part of a host, and any number as a port.
_BASE_URL = re.compile(
    r"https?://(?:\[[0-9a-f:.]+\]|[\w-]{1,63}(?:\.[\w-]{1,63})*\.?)(?::[1-9][0-9]{0,4})?/?", re.IGNORECASE
)


def validate_base_url(base_url: str) -> str:
    found, url, host = _BASE_URL.fullmatch(base_url), httpx.URL(), ""
    with suppress(httpx.InvalidURL, UnicodeError):  # such as [::::] and xn--a
        url = httpx.URL(base_url)
        host = url.host
    if found is None or not host or (url.port or 0) > 65_535:
        # The message does not quote the URL, which may hold a password.
        raise ValueError("the base URL must be a scheme, host and port only, like https://reporting.api.later.com")
    if url.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"the base URL http://{host} would send the token unencrypted: use https (http is for loopback only)"
        )
    # Without a default port, so that processes which write it and others share a rate limit.
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: localhost, ::1, or 127.0.0.0/8."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


MAX_MARGIN_SECONDS = 60.0
MARGIN_SHARE = 0.1  # of the lifetime, so that even a token that is valid for three seconds is usable
MAX_SECRET_LENGTH = 8192  # more than common servers accept in a header


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Client id and secret from the account manager, used to fetch tokens (docs/api.md, "Authentication").

    They have no characters that OAuth does not allow (RFC 6749, A.1 and A.2), such as a line break that was copied.
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
    """A bearer token from the user. It cannot be renewed: after it is rejected, every request fails."""

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
        # Excess padding is ignored.
        payload = base64.urlsafe_b64decode(token.split(".")[1] + "==")
    except (IndexError, ValueError):
        return None
    claims = decode_json(payload, _Claims)
    return claims.exp if claims else None


def decode_json(body: bytes, type_: type[_Decoded]) -> _Decoded | None:
    """Return a JSON object; None if it is not one of this type."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A bearer token from the API, and when to renew it; infinite if it is used until it is rejected."""

    value: str = field(repr=False)
    valid_until: float

    @classmethod
    def received(cls, value: str, *, now: float) -> "Token":
        """Return a token that was received now; it is renewed a margin before it expires."""
        expiry = token_expiry(value)
        if expiry is None or expiry <= now:  # expired on arrival: the local clock is wrong, so wait for a 401
            return cls(value, math.inf)
        return cls(value, expiry - min(MAX_MARGIN_SECONDS, MARGIN_SHARE * (expiry - now)))
