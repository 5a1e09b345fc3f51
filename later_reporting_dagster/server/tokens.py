"""Clients of a server, the file that lists them, and their tokens: JWTs signed with the client's secret, not stored."""

import hashlib
import hmac
import secrets
import tomllib
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

import jwt
import msgspec
from msgspec import Meta

from later_reporting_dagster.server.routes import ProblemError

TOKEN_SECONDS = 43_200
_ALGORITHM = "HS256"
_Text = Annotated[str, Meta(pattern=r"\S")]


class Client(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"client_id": "id", "client_secret": "secret", "instance_ids": "instances"},
):
    """A client of a server, and the instances that it can access (None: all), with the names of a file of clients."""

    client_id: _Text
    client_secret: _Text
    instance_ids: Annotated[tuple[_Text, ...], Meta(min_length=1)] | None = None

    def __repr__(self) -> str:
        return f"Client({self.client_id!r}, instance_ids={self.instance_ids!r})"

    @property
    def key(self) -> bytes:
        """The key of its tokens: they end with a change of its secret."""
        return hashlib.sha256(f"{self.client_id}\n{self.client_secret}".encode()).digest()


class _ClientFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients: Annotated[tuple[Client, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        client_id, count = Counter(client.client_id for client in self.clients).most_common(1)[0]
        if count > 1:
            raise ValueError(f"the client {client_id!r} is given twice")


def parse_clients(text: str) -> tuple[Client, ...]:
    """Parse a TOML file of clients.

    Example:
        >>> parse_clients('''
        ... [[clients]]
        ... id = "dashboards"
        ... secret = "f1a5"
        ... instances = ["instance_abc"]
        ... ''')
        (Client('dashboards', instance_ids=('instance_abc',)),)

    Raises:
        ValueError: The text is not such a file. The message contains no secret.
    """
    try:
        return msgspec.convert(tomllib.loads(text), _ClientFile).clients
    except tomllib.TOMLDecodeError as error:
        # The message may quote the text, but ends with the place.
        place = str(error).rpartition("(")[2].rstrip(")")
        raise ValueError(f"not TOML: see {place}") from None
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{error}. Write a table [[clients]] for each client, with id, secret and, for only some instances,"
            ' instances = ["…"]'
        ) from None


class Tokens:
    """Issues tokens to clients, and recognizes them; their lifetime is from `iat` to `exp`."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = {client.client_id: client for client in clients}

    def issue(self, client_id: str, client_secret: str, *, now: float) -> str:
        """Return a token that is valid from `now`, in seconds since the epoch; raise the 401 for wrong credentials."""
        client = self._clients.get(client_id)
        expected = client.client_secret if client else ""
        is_secret = hmac.compare_digest(client_secret.encode("utf-8", "replace"), expected.encode())
        if client is None or not is_secret:
            detail = "clientId or clientSecret is wrong"
            raise ProblemError(HTTPStatus.UNAUTHORIZED, detail, "INVALID_CLIENT_CREDENTIALS")
        claims = {
            "sub": client_id,
            "iat": int(now),
            "exp": int(now) + TOKEN_SECONDS,
            # Numbered pages belong to a token: two that are issued in the same second differ.
            "jti": secrets.token_urlsafe(9),
        }
        return jwt.encode(claims, client.key, _ALGORITHM)

    def client_of(self, authorization: str, *, now: float) -> Client:
        """Return the client of a request by its header `Authorization`; raise the 401 `ANL_00401` without one."""
        scheme, _, token = authorization.partition(" ")
        with suppress(jwt.InvalidTokenError, KeyError, TypeError, ValueError, RecursionError):
            unverified = jwt.decode(token.strip(), options={"verify_signature": False})
            client = self._clients[unverified["sub"]]
            # The time is that of the caller's clock.
            options: Any = {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False}
            claims = jwt.decode(token.strip(), client.key, [_ALGORITHM], options=options)
            if scheme.lower() == "bearer" and now < int(claims["exp"]):
                return client
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "the bearer token is missing, invalid or has expired")
