"""Bearer tokens in one place: the margin before they expire, one refresh at a time, one replay after a 401."""

import asyncio
import base64
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import msgspec

from later_reporting_dagster.client.errors import CredentialsRejected

LONGEST_MARGIN_SECONDS = 60.0
MARGIN_SHARE = 0.1  # of the lifetime, so that a token of three seconds can still be used
RENEWALS_BEFORE_USE = 3
# A token that others use too may be revoked between being fetched and being used; no token is good for a client that
# is disabled.
TOKENS_TRIED = 3
LONGEST_SECRET = 8192  # more than common servers take in a header


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What the account manager hands out; tokens are fetched with it.

    Raises:
        ValueError: one of the two is empty, longer than 8,192 characters, or holds what no credential does:
            characters other than those that OAuth has for it (RFC 6749, A.1 and A.2), or spaces around it, as what was
            copied with its line's end.
    """

    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.client_id or not self.client_secret:
            raise ValueError("client id and client secret are both needed, and one is empty")
        for name, value in (("id", self.client_id), ("secret", self.client_secret)):
            if value != value.strip() or not (value.isascii() and value.isprintable()) or len(value) > LONGEST_SECRET:
                raise ValueError(
                    f"the client {name} holds a line break, spaces around it, more than {LONGEST_SECRET} characters or "
                    "any beyond ASCII: copy it anew"
                )


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A ready bearer token. It is never refreshed: once it is refused, the user has to bring another.

    Raises:
        ValueError: it is empty, longer than 8,192 characters, or holds what no HTTP header may hold.
    """

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        if not is_header_safe(self.token):
            raise ValueError(
                f"the access token is empty or holds spaces, line breaks, more than {LONGEST_SECRET} characters or any "
                "beyond ASCII: copy it anew"
            )


def is_header_safe(token: str) -> bool:
    """Whether a bearer token can stand in a header: visible ASCII only, and of bounded length."""
    return 0 < len(token) <= LONGEST_SECRET and all("!" <= character <= "~" for character in token)


class _Claims(msgspec.Struct):
    exp: float


def expiry_of(token: str) -> float | None:
    """When a JWT says that it expires, in seconds since the epoch; None when that cannot be read.

    The signature is not verified: that is for the service to do.
    """
    try:
        payload = token.split(".")[1]
        # More padding than is due does no harm.
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=="), type=_Claims).exp
    except (IndexError, ValueError, msgspec.DecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Token:
    value: str = field(repr=False)
    good_until: float  # infinite: until it is refused

    @classmethod
    def received(cls, value: str, *, now: float) -> "_Token":
        expiry = expiry_of(value)
        if expiry is None or expiry <= now:  # expired on arrival: our clock is wrong, so let the service judge
            return cls(value, math.inf)
        return cls(value, expiry - min(LONGEST_MARGIN_SECONDS, MARGIN_SHARE * (expiry - now)))


class BearerAuth(httpx.Auth):
    """Puts a valid token on each request, at the moment when it may start.

    Args:
        take_turn: waits until one request may start.
        fetch_token: fetches a token; its turn was already taken. None when `token` is all there is.
        token: a ready token.
        clock: seconds since the epoch.

    Raises:
        CredentialsRejected: from a request that is refused with a fresh token, or with a ready one.
    """

    def __init__(
        self,
        *,
        take_turn: Callable[[], Awaitable[None]],
        fetch_token: Callable[[], Awaitable[str]] | None = None,
        token: AccessToken | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._take_turn = take_turn
        self._fetch_token = fetch_token
        self._clock = clock
        self._token = None if token is None else _Token(token.token, math.inf)
        self._renewing = asyncio.Lock()

    @property
    def secret(self) -> str | None:
        """The token in use, so that it can be redacted from texts."""
        return None if self._token is None else self._token.value

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send a request with a token, and a few times again with another one while that is refused."""
        for _ in range(TOKENS_TRIED):
            token = await self._turn_and_token()
            request.headers["Authorization"] = f"Bearer {token.value}"
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            if self._fetch_token is None:
                raise CredentialsRejected(
                    f"GET {request.url.path}: the access token was refused or has expired. "
                    "Bring a new one (LATER_ACCESS_TOKEN), or use a client id and secret, which renew by themselves."
                )
            if self._token is token:  # else another request has renewed it meanwhile
                self._token = None
        raise CredentialsRejected(
            f"GET {request.url.path}: {TOKENS_TRIED} tokens were refused, the last one fetched just now. "
            "Ask your account manager whether the client is enabled and reaches any instance."
        )

    async def _turn_and_token(self) -> _Token:
        """Take a turn, and a token that is valid when the turn has come, however long that took."""
        await self._take_turn()
        token = self._token or await self._renewed(None)
        for _ in range(RENEWALS_BEFORE_USE):
            if self._clock() < token.good_until:
                break
            token = await self._renewed(token)
        return token

    async def _renewed(self, stale: _Token | None) -> _Token:
        """Return another token than the stale one: what another request has fetched meanwhile, or a fresh one."""
        async with self._renewing:
            if self._token is not None and self._token is not stale:
                return self._token
            assert self._fetch_token is not None, "a ready token is good until it is refused"
            token = self._token = _Token.received(await self._fetch_token(), now=self._clock())
        await self._take_turn()  # the one that this request had taken went into the token
        return token
