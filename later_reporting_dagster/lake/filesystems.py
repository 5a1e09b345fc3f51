"""Open the fsspec filesystem of a lake's root, so that it makes no request that the lake does not need."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import fsspec

# The schemes of object stores, and the extra of this package that installs the fsspec filesystem of each.
EXTRAS: Mapping[str, str] = {
    "s3": "s3",
    "s3a": "s3",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
    "gs": "gcs",
    "gcs": "gcs",
}


def open_filesystem(root: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the filesystem of a path or URL, and the path within it.

    Args:
        root: the path or URL.
        options: the options of the filesystem.

    Raises:
        ImportError: a package is missing. The message names the extra that installs it, if there is one.
        ValueError: the scheme is unknown, or the options are invalid.
        Exception: whatever else the filesystem raises.
    """
    scheme = root.partition("://")[0]
    try:
        if EXTRAS.get(scheme) == "gcs":
            return _open_gcs(root, options)
        filesystem, path = fsspec.core.url_to_fs(root, **options)
    except ImportError as error:
        if (extra := EXTRAS.get(scheme)) is None:
            raise
        raise ImportError(f"{error}: pip install 'later-reporting-dagster[{extra}]'") from error
    return filesystem, path


def _open_gcs(root: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    # By default gcsfs returns a filesystem that first looks up the kind of each bucket by gRPC. It does so again for
    # every file if it may not, and waits for a minute each time if a proxy or an emulator does not support gRPC. The
    # lake needs only the JSON API, which this class uses.
    class_ = import_module("gcsfs.core").GCSFileSystem
    return class_(**{**class_._get_kwargs_from_urls(root), **options}), class_._strip_protocol(root)


def options_of_read(filesystem: Any) -> dict[str, Any]:
    """Return the arguments with which `cat_file` reads a whole file in one request.

    s3fs otherwise looks up the size first, to read files above 50 MB in parts. Worse, it takes the size from a cached
    listing, though the file may have been replaced since.
    """
    is_s3 = "s3" in ([filesystem.protocol] if isinstance(filesystem.protocol, str) else filesystem.protocol)
    # Releases of s3fs before 2025.5 read every file in one request, and do not know the argument.
    knows_argument = is_s3 and "max_concurrency" in inspect.signature(filesystem.cat_file).parameters
    return {"max_concurrency": 1} if knows_argument else {}


def is_cached(filesystem: Any) -> bool:
    """Return whether a filesystem is one of fsspec's caches, or wraps one."""
    # The base class of all caching filesystems of fsspec. `dir::` and `async_wrapper::` wrap another filesystem.
    cache = fsspec.get_filesystem_class("blockcache")
    inner = getattr(filesystem, "fs", None) or getattr(filesystem, "sync_fs", None)
    return isinstance(filesystem, cache) or (isinstance(inner, fsspec.AbstractFileSystem) and is_cached(inner))
