"""Files that the processes of one user share, protected from other users of the machine."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and writing; create it and its folder if absent.

    Raises:
        OSError: it cannot be opened; or it or its folder is a link, belongs to another user, or is writable by others.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_private(folder, path.parent)
        # Relative to the checked folder, because the path may point elsewhere by now.
        file = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "r+b") as stream:
        _check_private(file, path)
        yield stream


def _check_private(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "must belong to this user and not be writable by others", str(path))
