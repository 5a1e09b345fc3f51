"""Metadata of files, damaged by kind and bit by bit: each is read as what was written, or named as damaged."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from later_reporting_dagster.lake.file_metadata import FileMetadata, MadeFrom
from later_reporting_dagster.lake.parquet_file import (
    FileDamaged,
    MetadataDamaged,
    content_hash_of,
    parse_metadata,
    to_parquet,
)
from later_reporting_dagster.report.report_page import made_from_of_page, with_made_from
from tests.lake.conftest import rows

DEEP, LONG = "[" * 100_000, "9" * 100_000
TIME = "2024-01-04T05:00:00.000+00:00"
MONTHS = '{"2023-12-01":{"day":"2024-01-03","instances":["a"]}}'
TEXTS = {
    "fetched_at": TIME,
    "first_fetched_at": TIME,
    "queries": '["a"]',
    "metrics": '["likes"]',
    "hash_without_requests": "0" * 64,
    "made_from": '{"inputs":"a","definition":1}',
    "oddities": '{"total as text":1}',
    "refused_metrics": '{"campaignsCost":"2024-01-04"}',
    "recorded_months": MONTHS,
    "months": MONTHS,
}
MADE_FROM = MadeFrom(inputs="0123456789abcdef", definition=3)


def file_of(**texts: str) -> bytes:
    table = rows(3)
    return to_parquet(table, content_hash=content_hash_of(table), key_values=texts)


def damaged_texts() -> Iterator[tuple[str, str]]:
    future = datetime.now(UTC) + timedelta(days=400)
    for name in TEXTS:
        others = [DEEP, LONG, "null", "[[]]", '{"a":{}}', f'{{"x":{DEEP}}}']
        if "fetched_at" in name:
            others += ["", "2024-01-04T05:00:00", "2024-01-04", future.isoformat(), "0001-01-01T00:00:00+14:00"]
        if "months" in name:
            others += [MONTHS.replace("12-01", "12-02"), MONTHS.replace('["a"]', '"a"')]
        yield from ((name, text) for text in others)


def test_metadata_are_read_as_typed_values() -> None:
    metadata = parse_metadata(file_of(**TEXTS))
    assert metadata.fetched_at == metadata.first_fetched_at == datetime(2024, 1, 4, 5, tzinfo=UTC)
    assert metadata.made_from == MadeFrom(inputs="a", definition=1)
    assert metadata.oddities == {"total as text": 1}
    assert metadata.months == metadata.recorded_months
    assert metadata.key_values == TEXTS


def test_metadata_of_another_kind_are_damaged_and_named() -> None:
    for name, text in damaged_texts():
        with pytest.raises(MetadataDamaged, match=f"^{name} in its metadata cannot be read: "):
            parse_metadata(file_of(**TEXTS | {name: text}))


@pytest.mark.parametrize("name", TEXTS)
def test_metadata_that_are_required_are_damaged_if_they_are_absent(name: str) -> None:
    texts = {other: text for other, text in TEXTS.items() if other != name}
    with pytest.raises(MetadataDamaged, match=f"its metadata has no {name}"):
        parse_metadata(file_of(**texts), required=[name])


@pytest.mark.parametrize("bits", [range(0, 20_000, 97), pytest.param(range(20_000), marks=pytest.mark.faults)], ids=str)
def test_flipped_bits_of_a_footer_are_damage_or_another_value(bits: range) -> None:
    """A flipped bit raises nothing else. What it turns into another true value, no reader can notice."""
    intact = file_of(**TEXTS)
    begin = intact.index(b"later_reporting.")
    for bit in bits:
        byte = begin + bit // 8
        if byte < len(intact):
            data = bytearray(intact)
            data[byte] ^= 1 << bit % 8
            with suppress(FileDamaged):
                assert isinstance(parse_metadata(bytes(data)), FileMetadata)


def test_flipped_bits_of_the_last_line_of_a_page_are_damage_or_another_value() -> None:
    page = with_made_from(b"<html></html>", MADE_FROM)
    for bit in range(len(page) * 8):
        data = bytearray(page)
        data[bit // 8] ^= 1 << bit % 8
        assert isinstance(made_from_of_page(bytes(data)), MadeFrom | None)
