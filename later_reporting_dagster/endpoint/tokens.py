"""Clients of a server, and their tokens: JWTs that are signed with the client's secret and not stored."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jwt

from later_reporting_dagster.endpoint.problem_responses import ProblemError, unauthorized

_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a server.

    Attributes:
        client_id: Its id.
        client_secret: Its secret.
        instance_ids: Instances that it can access; None: all.
    """

    client_id: str
    client_secret: str = field(repr=False)
    instance_ids: tuple[str, ...] | None = None

    @property
    def key(self) -> bytes:
        """The key of its tokens: they end with a change of its secret."""
        return hashlib.sha256(f"{self.client_id}\n{self.client_secret}".encode()).digest()


class Tokens:
    """Issues tokens to clients, and recognizes them.

    Args:
        clients: The clients.
        lifetime_seconds: From a token's `iat` to its `exp` (docs/api.md, "Authentication").
        are_unique: Whether tokens that are issued to a client within a second differ.
    """

    def __init__(self, clients: Iterable[Client], *, lifetime_seconds: int, are_unique: bool) -> None:
        self._clients = {client.client_id: client for client in clients}
        self._lifetime_seconds = lifetime_seconds
        self._are_unique = are_unique
        self._verified = lru_cache(maxsize=1024)(self._verify)

    def issue(self, client_id: str, client_secret: str, *, now: float) -> str | None:
        """Return a token that is valid from `now`, in seconds since the epoch; None for wrong credentials."""
        client = self._clients.get(client_id)
        expected = client.client_secret if client else ""
        is_secret = hmac.compare_digest(client_secret.encode("utf-8", "replace"), expected.encode())
        if client is None or not is_secret:
            return None
        claims: dict[str, Any] = {"sub": client_id, "iat": int(now), "exp": int(now) + self._lifetime_seconds}
        if self._are_unique:
            claims["jti"] = secrets.token_urlsafe(9)
        return jwt.encode(claims, client.key, _ALGORITHM)

    def client_of(self, authorization: str, *, now: float) -> Client:
        """Return the client of a request.

        Args:
            authorization: The header `Authorization`.
            now: Seconds since the epoch.

        Raises:
            ProblemError: 401 `ANL_00401` for a missing, invalid or expired token.
        """
        client, expiry = self._verified(authorization)
        if now >= expiry:
            raise _invalid_token()
        return client

    def _verify(self, authorization: str) -> tuple[Client, int]:
        """Return the client of a token that it has signed, and the token's `exp`."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("a bearer token is required")
        try:
            unverified = jwt.decode(token.strip(), options={"verify_signature": False})
            client = self._clients[unverified["sub"]]
            # The time is that of the caller's clock.
            options: Any = {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False}
            claims = jwt.decode(token.strip(), client.key, [_ALGORITHM], options=options)
            return client, int(claims["exp"])
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, RecursionError):
            raise _invalid_token() from None


def _invalid_token() -> ProblemError:
    return unauthorized("the bearer token is invalid or has expired")
