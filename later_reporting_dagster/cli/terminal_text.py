"""Make text from elsewhere, such as an instance id or an error message, safe to print on one line of a terminal."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """Return `text` without line breaks, and with control characters replaced, so that it cannot move the cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _REPLACEMENT for char in " ".join(text.split()))


def printable_id(instance_id: str) -> str:
    """Return an instance id unchanged if it is printable, else as an ASCII Python literal."""
    return instance_id if instance_id.isprintable() else ascii(instance_id)
