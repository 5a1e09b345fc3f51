"""Clients of a server, and their tokens: JWTs that are signed with the client's secret and not stored."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from later_reporting_dagster.server.problem_responses import unauthorized


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


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    sub: str
    iat: int
    exp: int
    jti: str = ""


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
        """Return an HS256 JWT that is valid from `now`, in seconds since the epoch; None for wrong credentials."""
        client = self._clients.get(client_id)
        expected = client.client_secret if client else ""
        is_secret = hmac.compare_digest(client_secret.encode("utf-8", "replace"), expected.encode())
        if client is None or not is_secret:
            return None
        issued_at = int(now)
        jti = secrets.token_urlsafe(9) if self._are_unique else ""
        claims = _Claims(sub=client.client_id, iat=issued_at, exp=issued_at + self._lifetime_seconds, jti=jti)
        header = _base64url(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
        signed = header + b"." + _base64url(msgspec.json.encode(claims))
        return (signed + b"." + _signature(signed, client)).decode()

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
            raise unauthorized("the bearer token is invalid or has expired")
        return client

    def _verify(self, authorization: str) -> tuple[Client, int]:
        """Return the client of a token that it has signed, and the token's `exp`."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("a bearer token is required")
        signed, _, signature = token.strip().encode("utf-8", "replace").rpartition(b".")
        claims = _unverified_claims(signed)
        client = self._clients.get(claims.sub) if claims else None
        if not claims or not client or not hmac.compare_digest(signature, _signature(signed, client)):
            raise unauthorized("the bearer token is invalid or has expired")
        return client, claims.exp


def _unverified_claims(signed: bytes) -> _Claims | None:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(signed.partition(b".")[2] + b"=="), type=_Claims)
    except (ValueError, RecursionError):
        return None


def _signature(signed: bytes, client: Client) -> bytes:
    key = hashlib.sha256(f"{client.client_id}\n{client.client_secret}".encode()).digest()
    return _base64url(hmac.digest(key, signed, "sha256"))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
