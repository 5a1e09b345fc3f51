"""The posts that the sandbox serves at the moment: faults add and remove posts and alter rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.endpoint.query_parameters import PostsQuery
from later_reporting_dagster.endpoint.responses import JsonObject, PageRequest, page_body
from later_reporting_dagster.sandbox.post_pages import matching_rows, nest_metrics, render_posts
from later_reporting_dagster.sandbox.random_draws import IntArray
from later_reporting_dagster.sandbox.synthetic_world import World

_PENDING_SHARE = 0.02  # of all posts, if faults add posts between two requests


class ServedPosts:
    """The posts of a world that are served now: some are pending, some removed, some altered.

    The sorted rows of the latest queries are cached, so that a query is sorted once for all its pages. Rows are
    positions in `world.posts`.

    Args:
        alter: Return the row to serve for a row; None: serve all rows unchanged.
        pending_seed: Selects the posts that are not served until `add_post` adds them; None: serve all posts.
    """

    def __init__(
        self,
        world: World,
        *,
        alter: Callable[[JsonObject], JsonObject | msgspec.Raw] | None = None,
        pending_seed: int | None = None,
    ) -> None:
        self._world = world
        self._alter = alter
        self._all_rows = lru_cache(maxsize=256)(lambda query: matching_rows(world, query))
        count = len(world.posts)
        self._pending = np.zeros(count, dtype=np.bool_)
        if pending_seed is not None:
            self._pending = np.random.default_rng(pending_seed).random(count) < _PENDING_SHARE
        self._removed = np.zeros(count, dtype=np.bool_)
        self._additions = self._removals = 0

    def rows(self, query: PostsQuery) -> IntArray:
        rows = self._all_rows(query)
        return rows[self._is_served(rows)]

    def all_rows(self) -> IntArray:
        return np.flatnonzero(~(self._pending | self._removed))

    def page(self, query: PostsQuery, page: PageRequest) -> JsonObject:
        """Return the body of a page.

        A cursor's offset counts pending and removed posts too, so that added and removed posts do not shift it.
        """
        if page.api_version.has_totals:
            return self.page_of_rows(query, page, rows=self.rows(query))
        rows = self._all_rows(query)
        offsets = np.flatnonzero(self._is_served(rows))
        offsets = offsets[offsets >= page.offset]
        current, following = offsets[: page.size], offsets[page.size :]
        next_offset = int(following[0]) if len(following) else len(rows)
        return page_body(self._render(query, rows[current]), page=page, total=len(rows), next_offset=next_offset)

    def page_of_rows(self, query: PostsQuery, page: PageRequest, *, rows: IntArray) -> JsonObject:
        return page_body(self._render(query, rows[page.rows]), page=page, total=len(rows))

    def days(self, rows: IntArray) -> IntArray:
        return self._world.posts.day[rows]

    def add_post(self, query: PostsQuery, *, random: Random, limit: int) -> bool:
        """Add a pending post that matches a query, unless there is none or `limit` posts have been added."""
        rows = self._all_rows(query)
        pending = rows[self._pending[rows]]
        if not len(pending) or self._additions >= limit:
            return False
        self._pending[random.choice(pending.tolist())] = False
        self._additions += 1
        return True

    def remove_post(self, query: PostsQuery, *, random: Random, limit: int) -> bool:
        """Remove a post that matches a query, unless there is none or `limit` posts have been removed."""
        rows = self.rows(query)
        if not len(rows) or self._removals >= limit:
            return False
        self._removed[random.choice(rows.tolist())] = True
        self._removals += 1
        return True

    def _is_served(self, rows: IntArray) -> NDArray[np.bool_]:
        return ~(self._pending[rows] | self._removed[rows])

    def _render(self, query: PostsQuery, rows: IntArray) -> list[Any]:
        posts = render_posts(self._world, query, rows=rows)
        return [nest_metrics(row if self._alter is None else self._alter(row), query) for row in posts]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedPage:
    """A requested page of posts, of campaigns or of their performance, so that faults can replace it.

    Attributes:
        render: Return the body of any page of the same list.
        query: The query, if the rows are posts.
    """

    page: PageRequest
    render: Callable[[PageRequest], JsonObject]
    posts: ServedPosts
    query: PostsQuery | None = None

    def body(self) -> JsonObject:
        return self.render(self.page)
