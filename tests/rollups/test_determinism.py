"""Rollups have the same bytes for any number of threads and order of rows and files."""

import random

import pytest

from later_reporting_dagster.lake import content_hash_of
from tests.rollups.reference import World
from tests.rollups.worlds import Shape, rolled_up, world_of


@pytest.fixture(scope="module")
def world() -> World:
    """A random world with large counts and many creators."""
    return world_of(Shape(days=60, posts=250, missing=0.02, creators=30, largest=2**33, contradictory=0), seed=3)


@pytest.fixture(scope="module")
def hashes(world: World) -> dict[str, str]:
    """Content hashes of all tables, rolled up with one thread."""
    return {name: content_hash_of(table) for name, table in rolled_up(world, threads=1).items()}


@pytest.mark.parametrize("threads", [2, 8])
def test_rollups_have_the_same_bytes_in_any_order(world: World, hashes: dict[str, str], threads: int) -> None:
    found = rolled_up(world, threads=threads, files=random.Random(threads))
    assert {name: content_hash_of(table) for name, table in found.items()} == hashes
