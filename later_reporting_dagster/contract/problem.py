"""The service's error answers: `application/problem+json`, told apart by `type`."""

import re
from collections.abc import Iterable

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """What the service says went wrong. `detail` is for people and may change: never branch on it [D]."""

    type: str = ""
    title: str = ""
    detail: str = ""

    @classmethod
    def from_body(cls, body: bytes) -> "Problem":
        """Reads an error body; one that is no problem document reads as an empty problem."""
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return cls()

    def without(self, secrets: Iterable[str]) -> "Problem":
        """The same with each secret hidden, however JSON, a URL or a program's own notation spells it."""
        longest_first = sorted(filter(None, secrets), key=len, reverse=True)  # one may be a part of another
        if not longest_first:
            return self
        pattern = re.compile("|".join(map(_spelled_in_any_way, longest_first)))
        return Problem(*(pattern.sub("[hidden]", text) for text in (self.type, self.title, self.detail)))

    def __str__(self) -> str:
        return " ".join(part for part in (self.type, self.title, self.detail) if part) or "no problem document"


def _spelled_in_any_way(secret: str) -> str:
    return "".join(rf"\\{{0,8}}(?:{re.escape(each)}|(?i:%{ord(each):02x}|u{ord(each):04x}))" for each in secret)
