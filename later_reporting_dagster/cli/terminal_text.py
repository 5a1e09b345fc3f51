"""What others wrote, such as an instance's id or an error's message, as one line of a terminal and nothing worse."""

_NOT_SHOWN = "\N{REPLACEMENT CHARACTER}"


def in_one_line(text: str) -> str:
    """The text without line breaks, and without what would move a cursor or change a color."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _NOT_SHOWN for each in " ".join(text.split()))


def shown_id(instance_id: str) -> str:
    """An instance id as it is, or as Python writes it where it would not be one line."""
    return instance_id if instance_id.isprintable() else ascii(instance_id)
