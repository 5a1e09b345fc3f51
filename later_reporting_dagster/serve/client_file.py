"""The file that lists the clients of a server, with their secrets and instances."""

import tomllib
from collections import Counter
from collections.abc import Sequence

import msgspec

from later_reporting_dagster.endpoint.tokens import Client


class _ClientFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients: list[Client]


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
        clients = msgspec.convert(tomllib.loads(text), _ClientFile).clients
    except tomllib.TOMLDecodeError as error:
        # The message may quote the text, but ends with the place.
        place = str(error).rpartition("(")[2].rstrip(")")
        raise ValueError(f"not TOML: see {place}") from None
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{error}. Write a table [[clients]] for each client, with id, secret and, for only some instances,"
            ' instances = ["…"]'
        ) from None
    return check_clients(clients)


def check_clients(clients: Sequence[Client]) -> tuple[Client, ...]:
    """Return the clients; raise `ValueError` if there is none, a value is empty or two have the same id."""
    if not clients:
        raise ValueError("there is no client: add a table [[clients]]")
    for client in clients:
        if not client.client_id.strip() or not client.client_secret.strip():
            raise ValueError(f"the id or the secret of client {client.client_id!r} is empty")
        if client.instance_ids is not None and not (client.instance_ids and all(client.instance_ids)):
            raise ValueError(
                f"the instances of client {client.client_id!r} are empty: name some, or omit the line for all"
            )
    client_id, count = Counter(client.client_id for client in clients).most_common(1)[0]
    if count > 1:
        raise ValueError(f"the client {client_id!r} is given twice")
    return tuple(clients)
