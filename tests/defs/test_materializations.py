"""Interrupts while a materialization is logged, and the failure of a run, which lists the failed partitions."""

import signal

import dagster as dg
import pytest

from later_reporting_dagster.defs.materializations import combined_failure, interrupts_delayed


def test_failure_lists_reasons_in_order() -> None:
    failure = combined_failure({"2024-03-01 b c": "why", "2024-03-01 a": "because"}, what="file", written=7)
    assert failure.description == (
        "2 files failed and were not changed; 7 written.\n2024-03-01 a: because\n2024-03-01 b c: why"
    )
    assert failure.metadata["failed_partitions"].value == {"2024-03-01 a": "because", "2024-03-01 b c": "why"}
    assert failure.allow_retries is False
    one = combined_failure({"2024-03-01": "why"}, what="partition", written=0)
    assert one.description == "1 partition failed and was not changed; 0 written.\n2024-03-01: why"


def test_failure_limits_the_partitions_it_lists() -> None:
    failure = combined_failure({f"{number:04}": "why" for number in range(6000)}, what="file", written=0)
    lines = (failure.description or "").splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "… and 5980 more, in the metadata"
    assert len(failure.metadata["failed_partitions"].value) == 5000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_raised_after_a_write(number: signal.Signals) -> None:
    steps = []

    def write() -> None:
        with interrupts_delayed():
            signal.raise_signal(number)
            steps.append("written")
        steps.append("not interrupted")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        write()
    signal.signal(signal.SIGTERM, before)  # Dagster gives it the handler of SIGINT
    assert steps == ["written"]
