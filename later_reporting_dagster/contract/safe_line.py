"""Text of the server or of the lake as one line, before it is logged or shown."""

from collections.abc import Iterable


def one_line(text: str) -> str:
    """Return `text` without line breaks, and with control characters replaced, so that it cannot move the cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def safe_line(text: str, secrets: Iterable[str] = (), *, limit: int = 200) -> str:
    """Return a text of the server as one printable line, with each secret that occurs in it replaced.

    Args:
        limit: maximum length in characters; a longer line is cut there and ends with an ellipsis.
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "[hidden]")
    line = one_line(text)
    return line if len(line) <= limit else f"{line[:limit]}…"
