"""The posts as the sandbox serves them now: with faults they come and go, and some are malformed."""

from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

import msgspec
import numpy as np

from later_reporting_dagster.sandbox.post_pages import envelope, matching_rows, nested, rendered
from later_reporting_dagster.sandbox.query_parameters import PageRequest, Question
from later_reporting_dagster.sandbox.synthetic_world import IntArray, World

Document = dict[str, Any]

LATE_SHARE = 0.02  # of all posts, when posts are to arrive during a walk


class ServedPosts:
    """The posts as they are served now: some have not arrived yet, some have vanished, some are altered.

    The order of the rows of the latest queries is kept, so that reading all pages of a query sorts once.

    Args:
        world: all posts, ever.
        alter: makes of a row what is served; None: nothing is altered.
        late_seed: chooses posts that have not arrived yet; None: all have.
    """

    def __init__(
        self,
        world: World,
        *,
        alter: Callable[[Document], Document | msgspec.Raw] | None = None,
        late_seed: int | None = None,
    ) -> None:
        self._world = world
        self._alter = alter
        self._ever = lru_cache(maxsize=256)(lambda question: matching_rows(world, question))
        count = len(world.posts)
        self._late = np.zeros(count, dtype=np.bool_)
        if late_seed is not None:
            self._late = np.random.default_rng(late_seed).random(count) < LATE_SHARE
        self._vanished = np.zeros(count, dtype=np.bool_)
        self._arrivals = self._departures = 0

    def rows(self, question: Question) -> IntArray:
        """Positions of all posts that answer the question now, in its order."""
        ever = self._ever(question)
        return ever[~(self._late[ever] | self._vanished[ever])]

    def page(self, question: Question, page: PageRequest) -> Document:
        """A page as it is due. What comes or goes meanwhile moves no place that a cursor leads to."""
        if page.revision.has_totals:
            return self.page_of(question, page, self.rows(question))
        ever = self._ever(question)
        places = np.flatnonzero(~(self._late[ever] | self._vanished[ever]))
        places = places[places >= page.start]
        here, after = places[: page.size], places[page.size :]
        following = int(after[0]) if len(after) else len(ever)
        return envelope(self._shown(question, ever[here]), page=page, total=len(ever), next_start=following)

    def page_of(self, question: Question, page: PageRequest, rows: IntArray) -> Document:
        """A page of `rows`."""
        return envelope(self._shown(question, rows[page.rows]), page=page, total=len(rows))

    def _shown(self, question: Question, rows: IntArray) -> list[Any]:
        found = rendered(self._world, question, rows)
        return [nested(row if self._alter is None else self._alter(row), question) for row in found]

    def days(self, rows: IntArray) -> IntArray:
        """The days on which posts were published, as ordinals."""
        return self._world.posts.day[rows]

    def one_arrives(self, question: Question, *, random: Random, at_most: int) -> bool:
        """Lets in a post that answers the question, if one is late and not so many have arrived already."""
        ever = self._ever(question)
        late = ever[self._late[ever]]
        if not len(late) or self._arrivals >= at_most:
            return False
        self._late[random.choice(late.tolist())] = False
        self._arrivals += 1
        return True

    def one_vanishes(self, question: Question, *, random: Random, at_most: int) -> bool:
        """Takes away a post that answers the question for good, unless so many have vanished already."""
        rows = self.rows(question)
        if not len(rows) or self._departures >= at_most:
            return False
        self._vanished[random.choice(rows.tolist())] = True
        self._departures += 1
        return True
