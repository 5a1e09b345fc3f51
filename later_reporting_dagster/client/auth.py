"""Bearer tokens. They are renewed before they expire and after a 401, by one request at a time."""

import asyncio
import base64
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import msgspec

from later_reporting_dagster.client.errors import CredentialsRejected

MAX_MARGIN_SECONDS = 60.0
MARGIN_SHARE = 0.1  # of the lifetime, so that even a token that is valid for three seconds is usable
MAX_RENEWALS = 3  # maximum number of renewals in a row before one request is sent
# A shared token may be revoked after it was fetched and before it is used, so one 401 does not show that the client is
# disabled. A disabled client gets 401 for every token.
MAX_TOKENS = 3
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
class _Token:
    value: str = field(repr=False)
    valid_until: float  # infinite if it is used until it is rejected

    @classmethod
    def received(cls, value: str, *, now: float) -> "_Token":
        expiry = token_expiry(value)
        if expiry is None or expiry <= now:  # expired on arrival: the local clock is wrong, so wait for a 401
            return cls(value, math.inf)
        return cls(value, expiry - min(MAX_MARGIN_SECONDS, MARGIN_SHARE * (expiry - now)))


class BearerAuth(httpx.Auth):
    """Authentication flow that waits for the rate limit, sets a token, and renews it after a 401.

    `Transport` drives the flow itself; it is never passed to httpx.

    Args:
        acquire_slot: waits until the rate limit lets one request start.
        fetch_token: fetches a token. Its first attempt uses the slot that the waiting data request acquired; each retry
            acquires its own. None if `token` is given.
        token: a token that cannot be renewed.
        clock: returns seconds since the epoch.

    Raises:
        CredentialsRejected: during a request, `token` or several fetched tokens in a row were rejected.
    """

    def __init__(
        self,
        *,
        acquire_slot: Callable[[], Awaitable[None]],
        fetch_token: Callable[[], Awaitable[str]] | None = None,
        token: AccessToken | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._acquire_slot = acquire_slot
        self._fetch_token = fetch_token
        self._clock = clock
        self._token = None if token is None else _Token(token.token, math.inf)
        self._renewal_lock = asyncio.Lock()

    @property
    def secret(self) -> str | None:
        """The current token, for redaction; None before the first one is fetched."""
        return None if self._token is None else self._token.value

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Yield the request with a token, and again with a new one while the response is 401."""
        for _ in range(MAX_TOKENS):
            token = await self._acquire_slot_and_token()
            request.headers["Authorization"] = f"Bearer {token.value}"
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            if self._fetch_token is None:
                raise CredentialsRejected(
                    f"GET {request.url.path}: the access token was rejected or has expired. "
                    "Set a new one (LATER_ACCESS_TOKEN), or use a client id and secret to have tokens renewed."
                )
            if self._token is token:  # else another request has renewed it
                self._token = None
        raise CredentialsRejected(
            f"GET {request.url.path}: {MAX_TOKENS} tokens were rejected, the last one just after it was fetched. "
            "Ask your account manager whether the client is enabled and has an instance."
        )

    async def _acquire_slot_and_token(self) -> _Token:
        """Wait for a rate limit slot, then return a token that is valid after the wait.

        After `MAX_RENEWALS` renewals in a row, the last token is returned even if it is no longer valid.
        """
        await self._acquire_slot()
        token = self._token or await self._renew(None)
        for _ in range(MAX_RENEWALS):
            if self._clock() < token.valid_until:
                break
            token = await self._renew(token)
        return token

    async def _renew(self, stale: _Token | None) -> _Token:
        """Return a token other than `stale`: one that another request has just fetched, or a new one."""
        async with self._renewal_lock:
            if self._token is not None and self._token is not stale:
                return self._token
            assert self._fetch_token is not None, "a token that cannot be renewed is valid until it is rejected"
            token = self._token = _Token.received(await self._fetch_token(), now=self._clock())
        await self._acquire_slot()  # the token request used the slot of this request
        return token
