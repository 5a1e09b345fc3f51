"""Retired instances: their files stay, but rollups, the report and `serve` leave them out.

A mark is a file of its own, `{root}/_retired/instance_id={percent-encoded id}/retired.json`: it does not depend on a
listing of the API, on a setting or on a table. Other readers of the lake skip names that begin with an underscore.
"""

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.instances import Marks
from later_reporting_dagster.lake.paths import INSTANCE_PREFIX, decode_instance_id, encode_instance_id
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage

_DIRECTORY = "_retired"
_FILE_NAME = "retired.json"


class RetiredInstances:
    """The marks of a lake."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def marks(self) -> Marks:
        """Return which instances are retired. It takes one listing.

        A folder with another name is an error: its instance would come back into the numbers.
        """
        return Marks(frozenset(map(self._instance_id, self._storage.named_files([_DIRECTORY], _FILE_NAME))))

    def _instance_id(self, path: str) -> str:
        folder = path.removesuffix(f"/{_FILE_NAME}")
        try:
            return decode_instance_id(folder.rpartition("/")[2].removeprefix(INSTANCE_PREFIX))
        except ValueError:
            raise LakeUnavailable(
                f"{self._storage.location(folder)} does not name a retired instance. Next step: remove it, and run"
                " `later-reporting retire` with the id of the instance"
            ) from None

    def add(self, instance_id: str) -> None:
        """Retire an instance."""
        self._storage.write(self._path(instance_id), b"{}\n")

    def remove(self, instance_id: str) -> None:
        """Undo `add`; an instance that is not retired stays what it is."""
        self._storage.remove(self._path(instance_id))

    @staticmethod
    def _path(instance_id: str) -> str:
        return f"{_DIRECTORY}/{INSTANCE_PREFIX}{encode_instance_id(instance_id)}/{_FILE_NAME}"


def rows_in_numbers(rows: pa.Table, marks: Marks) -> pa.Table:
    """Return the rows of a table whose instances, in the column `instance_id`, are in the numbers."""
    names = [*filter(marks.is_in_numbers, pc.unique(rows["instance_id"]).to_pylist())]
    return rows.filter(pc.is_in(rows["instance_id"], pa.array(names, pa.string())))
