"""The one failure of a run: it names each partition, or day and instance, and stays readable."""

from later_reporting_dagster.defs.materializations import failure_of


def test_each_failure_is_named_with_its_reason_in_order() -> None:
    failure = failure_of({"2024-03-01 b c": "why", "2024-03-01 a": "because"}, what="file", written=7)
    assert failure.description == (
        "2 files failed and stayed as before; 7 written.\n2024-03-01 a: because\n2024-03-01 b c: why"
    )
    assert failure.metadata["failed_partitions"].value == {"2024-03-01 a": "because", "2024-03-01 b c": "why"}
    assert failure.allow_retries is False
    one = failure_of({"2024-03-01": "why"}, what="partition", written=0)
    assert one.description == "1 partition failed and stayed as before; 0 written.\n2024-03-01: why"


def test_of_many_the_description_shows_some_and_the_metadata_more() -> None:
    failure = failure_of({f"{number:04}": "why" for number in range(6000)}, what="file", written=0)
    lines = (failure.description or "").splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "… and 5980 more, in the metadata"
    assert len(failure.metadata["failed_partitions"].value) == 5000
