"""Bearer tokens that look like the service's own: HS256 JWTs whose `exp` is the only truth about their life."""

import base64
import hashlib
import hmac
from dataclasses import dataclass

import msgspec


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    iat: int
    exp: int


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Issues tokens for one client and knows its own again, also after a restart: nothing is stored."""

    client_id: str
    client_secret: str
    lifetime_seconds: int

    def issue(self, now: float) -> str:
        """A token that is valid from `now`, in seconds since the epoch, for its lifetime."""
        issued_at = int(now)
        claims = _Claims(sub=self.client_id, iat=issued_at, exp=issued_at + self.lifetime_seconds)
        header = _encoded(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
        signed = header + b"." + _encoded(msgspec.json.encode(claims))
        return (signed + b"." + self._signature(signed)).decode()

    def accepts(self, token: str, now: float) -> bool:
        """Whether `token` was issued here and has not expired."""
        signed, _, signature = token.encode("utf-8", "replace").rpartition(b".")
        if not hmac.compare_digest(signature, self._signature(signed)):
            return False
        payload = signed.partition(b".")[2]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=="), type=_Claims)
        return now < claims.exp

    def _signature(self, signed: bytes) -> bytes:
        key = hashlib.sha256(f"{self.client_id}\n{self.client_secret}".encode()).digest()
        return _encoded(hmac.digest(key, signed, "sha256"))


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
