"""Replace an object only if it is still the one that was read: its version comes with its data, and a put names it.

fsspec has no such calls. These are those of s3fs and adlfs, of which some names are not public; tests run them with the
oldest and the newest versions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from fsspec.asyn import AsyncFileSystem, sync


class ReplacedMeanwhileError(Exception):
    """The object is not the one that was read."""


class NotOfferedError(Exception):
    """The store has no conditional puts."""


class S3:
    """Amazon S3, and stores with its API."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self._call = import_module("s3fs.core")._error_wrapper

    def read(self, path: str) -> tuple[bytes, str]:
        """Return an object and its ETag."""
        bucket, key, _ = self._filesystem.split_path(path)

        async def get() -> tuple[bytes, str]:
            response = await self._filesystem._call_s3("get_object", Bucket=bucket, Key=key)
            try:
                return await response["Body"].read(), response["ETag"]
            finally:
                response["Body"].close()

        async def get_with_retries() -> tuple[bytes, str]:
            found: tuple[bytes, str] = await self._call(get, retries=self._filesystem.retries)
            return found

        found: tuple[bytes, str] = sync(self._filesystem.loop, get_with_retries)
        return found

    def put(self, path: str, data: bytes, *, replaces: str | None) -> None:
        """Put an object in the place of that with an ETag; without it, only if there is none."""
        condition = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces}
        with _refusals(replaces):
            # In one part: s3fs drops conditions of an upload in several.
            self._filesystem.pipe_file(path, data, chunksize=max(len(data), 1), **condition)


class Azure:
    """Azure Blob Storage."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self._if_not_modified = import_module("azure.core").MatchConditions.IfNotModified

    def read(self, path: str) -> tuple[bytes, str]:
        """Return an object and its ETag."""
        container, blob, _ = self._filesystem.split_path(path)

        async def get() -> tuple[bytes, str]:
            async with self._filesystem.service_client.get_blob_client(container=container, blob=blob) as client:
                stream = await client.download_blob()
                return await stream.readall(), stream.properties.etag

        try:
            found: tuple[bytes, str] = sync(self._filesystem.loop, get)
        except Exception as error:
            if getattr(error, "error_code", None) == "BlobNotFound":
                raise FileNotFoundError(path) from error
            raise
        return found

    def put(self, path: str, data: bytes, *, replaces: str | None) -> None:
        """Put an object in the place of that with an ETag; without it, only if there is none."""
        condition: dict[str, Any] = {"mode": "create"}
        if replaces is not None:
            condition = {"etag": replaces, "match_condition": self._if_not_modified}
        with _refusals(replaces):
            self._filesystem.pipe_file(path, data, **condition)


def conditional_puts(filesystem: Any, extra: str | None) -> S3 | Azure | None:
    """Return those of a filesystem, given the extra that installs it; None if it has none.

    Google Cloud Storage has generations, but none of its emulators compares them, so they were never tried.
    """
    if not isinstance(filesystem, AsyncFileSystem):  # a stand-in, or one that caches files
        return None
    return S3(filesystem) if extra == "s3" else Azure(filesystem) if extra == "azure" else None


@contextmanager
def _refusals(replaces: str | None) -> Iterator[None]:
    """Translate the errors of a conditional put, of which each filesystem has its own.

    412 says that the object has another version, 409 that another put is under way, 404 that it was removed meanwhile.
    """
    try:
        yield
    except FileExistsError as error:
        raise ReplacedMeanwhileError from error
    except Exception as error:
        status, code = _status_and_code(error)
        if status == 501 or code == "NotImplemented":
            raise NotOfferedError from error
        is_gone = status == 404 and replaces is not None and code in ("NoSuchKey", "BlobNotFound", "404")
        if status in (409, 412) or is_gone:
            raise ReplacedMeanwhileError from error
        raise


def _status_and_code(error: Exception) -> tuple[int | None, str]:
    """Return the HTTP status and the code of the store's error, which s3fs has as the cause of its own."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):  # of botocore
            metadata = response.get("ResponseMetadata") or {}
            return metadata.get("HTTPStatusCode"), str((response.get("Error") or {}).get("Code", ""))
        if (status := getattr(each, "status_code", None)) is not None:  # of the Azure SDK
            return int(status), str(getattr(each, "error_code", "") or "")
    return None, ""
