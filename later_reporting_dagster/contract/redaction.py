"""Text that the service chose, as an error or a log may show it."""

import html
import re
from collections.abc import Iterable
from urllib.parse import unquote

HIDDEN_FROM = 8  # characters of a secret in a row; fewer may be there by chance

_UNICODE_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_LONG_WORD = re.compile(r"([\w+/=%~-]{8})[\w+/=%~-]{25,}")  # base64 of 24 bytes has 32 characters


def excerpt(text: str, secrets: Iterable[str] = (), *, limit: int = 200) -> str:
    """Return a text as one short line, printable, without secrets and without parts of them.

    A part of eight characters is found in capitals too, and as JSON, HTML, a URL or a program's notation spells it.
    Other encodings cannot be recognized, but look like a long word, of which only the beginning is shown.

    Args:
        text: as the service sent it; its first `20 * limit` characters are read, which bounds the time.
        secrets: hidden wherever they stand, for example the token.
        limit: the most characters to show.
    """
    text, secrets = text[: 20 * limit].replace("\0", " "), [*filter(None, secrets)]
    text = _unescaped(text) if secrets else text
    folded, places = _folded(text)
    shown = list(text)
    for secret, _ in map(_folded, {spelled for each in secrets for spelled in (each, _unescaped(each))}):
        size = min(len(secret), HIDDEN_FROM)
        parts = {secret[start : start + size] for start in range(len(secret) - size + 1)} - {""}
        for start in range(len(folded) - size + 1):
            if folded[start : start + size] in parts:
                first, end = places[start], places[start + size - 1] + 1
                shown[first:end] = "\0" * (end - first)
    words = re.sub("\0+", "[hidden]", "".join(shown)).split()
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(words))
    line = _LONG_WORD.sub(r"\1…", line)
    return line if len(line) <= limit else f"{line[:limit]}…"


def _unescaped(text: str) -> str:
    return html.unescape(unquote(_UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)))


def _folded(text: str) -> tuple[str, list[int]]:
    """The text as it is compared, and where each of its characters stood."""
    # URLs have + for a space, JSON and Python a backslash before quotes, and a line may be broken anywhere.
    places = [place for place, each in enumerate(text) if each not in "\\+" and not each.isspace()]
    return "".join(text[place].lower()[:1] for place in places), places
