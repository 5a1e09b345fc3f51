"""Error responses: `application/problem+json` with `type`, `title` and `detail`.

The problem types are listed in docs/api.md, "Errors".
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from later_reporting_dagster.contract.parameters import ProblemType


class ProblemError(Exception):
    """A request that gets an error response instead of data.

    Args:
        status: HTTP status of the response.
        problem_type: Value of `type` in the body.
        detail: Value of `detail` in the body.
    """

    def __init__(self, status: HTTPStatus, problem_type: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.type = problem_type
        self.detail = detail


def bad_request(detail: str) -> ProblemError:
    """Return the 400 `ANL_00400` for an invalid parameter or body."""
    return ProblemError(HTTPStatus.BAD_REQUEST, ProblemType.VALIDATION, detail)


def unauthorized(detail: str) -> ProblemError:
    """Return the 401 `ANL_00401` for a missing, invalid or expired bearer token."""
    return ProblemError(HTTPStatus.UNAUTHORIZED, ProblemType.UNAUTHORIZED, detail)


def problem_response(
    status: int, problem_type: str, detail: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error response. Its title is the standard HTTP phrase of the status."""
    body = {"type": str(problem_type), "title": HTTPStatus(status).phrase, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")
