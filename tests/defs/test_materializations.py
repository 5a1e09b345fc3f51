"""The one failure of a run: it names each partition, and stays readable when there are many."""

from later_reporting_dagster.defs.runs.materializations import failure_of


def test_each_failed_partition_is_named_with_its_reason_in_order() -> None:
    failure = failure_of({"2024-03-01|b%20c": "why", "2024-03-01|a": "because"}, landed=7)
    assert failure.description == (
        "2 partitions failed and stayed as before; 7 landed.\n2024-03-01|a: because\n2024-03-01|b%20c: why"
    )
    assert failure.metadata["failed_partitions"].value == {"2024-03-01|a": "because", "2024-03-01|b%20c": "why"}
    assert failure.allow_retries is False


def test_one_is_said_in_the_singular() -> None:
    failure = failure_of({"2024-03-01": "why"}, landed=0)
    assert failure.description == "1 partition failed and stayed as before; 0 landed.\n2024-03-01: why"


def test_of_many_the_description_shows_some_and_the_metadata_all() -> None:
    failed = {f"2024-03-{number:02}|a": "why" for number in range(1, 31)}
    failure = failure_of(failed, landed=0)
    lines = (failure.description or "").splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "… and 10 more, in the metadata"
    assert len(failure.metadata["failed_partitions"].value) == 30
