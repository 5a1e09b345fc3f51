import gc
from collections.abc import Iterator

import pytest

from later_reporting_dagster.lake.garbage_collection import paused_collection


@pytest.fixture(autouse=True)
def collection() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_collection_is_paused_and_resumed() -> None:
    with paused_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collection_is_resumed_after_an_error() -> None:
    with pytest.raises(KeyError), paused_collection():
        raise KeyError
    assert gc.isenabled()


def test_a_pause_within_a_pause_does_not_end_it() -> None:
    with paused_collection():
        with paused_collection():
            pass
        assert not gc.isenabled()


def test_a_function_that_pauses_may_be_called_again_and_again() -> None:
    @paused_collection()
    def is_enabled() -> bool:
        return gc.isenabled()

    assert not is_enabled()
    assert gc.isenabled()
    assert not is_enabled()
