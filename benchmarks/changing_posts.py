"""The posts of a world, of which some appear or vanish while pages are read."""

import time
from dataclasses import dataclass, field
from random import Random

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.measurement import CREDENTIALS
from later_reporting_dagster.contract import PAGED
from later_reporting_dagster.server.app import Caller, api_app
from later_reporting_dagster.server.routes import (
    INSTANCES,
    POSTS,
    JsonObject,
    PageQuery,
    PostsQuery,
    instances_page,
    json_response,
    page_body,
)
from later_reporting_dagster.server.sandbox import World
from later_reporting_dagster.server.sandbox.served_posts import posts_page
from later_reporting_dagster.server.tokens import Client, Tokens

KEYS_PATH = "/keys-of-posts"
APPEAR, VANISH = "appear", "vanish"
_ALL_ROWS = PageQuery(0, 10**9)

Key = tuple[str, int, int]
"""Instance, campaign and post."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How the posts of a server change.

    Attributes:
        kind: `appear` or `vanish`.
        number: How many posts do so, one at a time.
        pages: Pages of posts that are read before each change.
    """

    kind: str
    number: int
    pages: int


@dataclass(kw_only=True)
class ChangingPosts:
    """Serves the pages of posts, and changes which posts there are after some of them."""

    world: World
    changes: Changes
    hidden: set[Key] = field(default_factory=set)
    pages_read: int = 0
    _rows: dict[PostsQuery, list[JsonObject]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        posts = self.world.posts
        keys = [
            (self.world.instance_ids[instance], campaign_id, post_id)
            for instance, campaign_id, post_id in zip(
                posts.instance.tolist(), posts.campaign_id.tolist(), posts.post_id.tolist(), strict=True
            )
        ]
        self._keys = keys
        self._to_change = Random(0).sample(keys, self.changes.number)  # noqa: S311 - not for cryptography
        if self.changes.kind == APPEAR:
            self.hidden.update(self._to_change)

    async def page(self, query: PostsQuery, page: PageQuery, _caller: Caller) -> Response:
        """Return a page of the posts that there are now."""
        if query not in self._rows:
            self._rows[query] = posts_page(self.world, query, _ALL_ROWS)["data"]
        rows = [row for row in self._rows[query] if _key(row) not in self.hidden]
        self._count_page()
        return json_response(page_body(rows[page.rows], page=page, total=len(rows)))

    async def keys(self, _request: Request) -> Response:
        """Return the keys of the posts that there are now."""
        return JSONResponse([key for key in self._keys if key not in self.hidden])

    def _count_page(self) -> None:
        self.pages_read += 1
        if self.pages_read % self.changes.pages == 0 and self._to_change:
            self.hidden ^= {self._to_change.pop()}


def changing_app(world: World, changes: Changes) -> Starlette:
    """Return what fetching posts by numbered pages needs, and the route of their keys; without a rate limit."""
    posts = ChangingPosts(world=world, changes=changes)

    async def instances(_query: object, page: PageQuery, caller: Caller) -> Response:
        return json_response(instances_page(caller.instance_ids or (), page))

    app = api_app(
        {POSTS: posts.page, INSTANCES: instances},
        tokens=Tokens([Client(CREDENTIALS["clientId"], CREDENTIALS["clientSecret"], world.instance_ids)]),
        rate_limit=(10**9, 60.0),
        api_version=PAGED,
        clock=time.time,
    )
    app.routes.append(Route(KEYS_PATH, posts.keys))
    return app


def _key(row: JsonObject) -> Key:
    return row["instanceId"], row["campaignId"], row["postId"]
