"""How the sandbox says no: `application/problem+json` with exactly `type`, `title` and `detail` [D]."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from later_reporting_dagster.contract.enums import ProblemType


class Refusal(Exception):  # noqa: N818 - named for what it is
    """A request is answered with a problem instead of data."""

    def __init__(self, status: HTTPStatus, problem_type: ProblemType, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.type = problem_type
        self.detail = detail


def invalid(detail: str) -> Refusal:
    """A parameter or body that the document does not allow."""
    return Refusal(HTTPStatus.BAD_REQUEST, ProblemType.VALIDATION, detail)


def unauthorized(detail: str) -> Refusal:
    """A data route was asked without a bearer token that is valid now."""
    return Refusal(HTTPStatus.UNAUTHORIZED, ProblemType.UNAUTHORIZED, detail)


def problem(status: int, problem_type: str, detail: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """The answer itself; the title is HTTP's own phrase for the status."""
    body = {"type": str(problem_type), "title": HTTPStatus(status).phrase, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")
