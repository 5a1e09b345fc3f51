"""Text of the server or of the lake as one line, before it is logged or shown."""

import html
import re
from collections.abc import Iterable
from urllib.parse import unquote

HIDDEN_PART_LENGTH = 8  # consecutive characters of a secret; fewer may match by chance

_UNICODE_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_LONG_WORD = re.compile(r"([\w+/=%~-]{8})[\w+/=%~-]{24,}")  # 32 characters or more: base64 of 24 bytes has 32


def one_line(text: str) -> str:
    """Return `text` without line breaks, and with control characters replaced, so that it cannot move the cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def safe_line(text: str, secrets: Iterable[str] = (), *, limit: int = 200) -> str:
    """Return a text as one short, printable line without secrets or parts of them.

    Any eight consecutive characters of a secret are replaced, in upper or lower case, and also where they are escaped
    as in JSON, HTML, URLs or source code. Other encodings cannot be recognized, but usually form long words: words of
    32 characters or more are cut after eight.

    Args:
        text: text from the server; only its first `20 * limit` characters are read, which bounds the time.
        limit: maximum length in characters; a longer result is cut there and ends with an ellipsis.
    """
    text, secrets = text[: 20 * limit].replace("\0", " "), [*filter(None, secrets)]
    text = _unescape(text) if secrets else text
    normalized, positions = _normalize(text)
    shown = list(text)
    for spelling, _ in map(_normalize, {*secrets, *map(_unescape, secrets)}):
        size = min(len(spelling), HIDDEN_PART_LENGTH)
        parts = {spelling[start : start + size] for start in range(len(spelling) - size + 1)} - {""}
        for start in range(len(normalized) - size + 1):
            if normalized[start : start + size] in parts:
                first, end = positions[start], positions[start + size - 1] + 1
                shown[first:end] = "\0" * (end - first)
    words = re.sub("\0+", "[hidden]", "".join(shown)).split()
    line = _LONG_WORD.sub(r"\1…", one_line(" ".join(words)))
    return line if len(line) <= limit else f"{line[:limit]}…"


def _unescape(text: str) -> str:
    return html.unescape(unquote(_UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)))


def _normalize(text: str) -> tuple[str, list[int]]:
    """Return the text as it is compared with secrets, and the original position of each of its characters."""
    # URLs write a space as +, JSON and Python write a backslash before quotes, and a line may be broken anywhere.
    positions = [
        position for position, character in enumerate(text) if character not in "\\+" and not character.isspace()
    ]
    return "".join(text[position].lower()[:1] for position in positions), positions
