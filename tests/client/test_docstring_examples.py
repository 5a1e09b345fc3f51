"""Tests of the examples in docstrings of the client."""

import doctest
from types import ModuleType

import pytest

from later_reporting_dagster.client import client, cursor_paginator, page_number_paginator


@pytest.mark.parametrize(
    "module", [client, cursor_paginator, page_number_paginator], ids=lambda module: module.__name__
)
def test_examples_in_docstrings_run(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
