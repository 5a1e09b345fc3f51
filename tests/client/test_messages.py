"""Messages of the client show instance ids whole, also those that the server sends, and no secret."""

import re
from dataclasses import replace

import pytest

from later_reporting_dagster.client import InconsistentPages, LaterError, PagesRefetched, RequestRetried
from tests.client.scripted_api import CLIENT_ID, CLIENT_SECRET, fetch_posts, of_type, post
from tests.conftest import problem

# They differ in the last character only.
INSTANCE_IDS = [f"3f2504e0-4f89-11d3-9a0c-0305e82c330{number}" for number in range(3)]


def mentioned(message: str) -> list[str]:
    return re.findall("3f2504e0[0-9a-f-]*", message)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 418, 429, 500])
def test_messages_about_a_failure_show_instance_ids_whole_and_no_secret(service, new_client, july, events, status):
    async def echo(request):
        sent = f"{request.headers['authorization']}, {CLIENT_ID}, {CLIENT_SECRET}"
        return problem(status, "ANL_00", detail=f"{sent} sent unknown instanceIds: {', '.join(INSTANCE_IDS)}")

    service.faults.extend([echo] * 100)
    with pytest.raises(LaterError) as raised:
        fetch_posts(new_client(), replace(july, instance_ids=tuple(INSTANCE_IDS)))
    # The text of the server is quoted except for a redirect and a rejected token.
    quoted = 1 if status in (302, 401) else 2
    for message in (str(raised.value), *(event.reason for event in of_type(events, RequestRetried))):
        assert mentioned(message) == INSTANCE_IDS * quoted
        assert not [secret for secret in (CLIENT_ID, CLIENT_SECRET, *service.tokens) if secret in message]


def test_messages_about_rows_show_instance_ids_whole(service, new_client, july, events):
    service.posts = [post(number, instance_id=name) for number, name in enumerate(INSTANCE_IDS)]
    with pytest.raises(InconsistentPages) as raised:
        fetch_posts(new_client(), july)
    (refetched,) = of_type(events, PagesRefetched)
    service.posts = [post(1, campaignId=INSTANCE_IDS[0], postId=INSTANCE_IDS[1], postDate=INSTANCE_IDS[2])]
    (bad_row,) = fetch_posts(new_client(), july).bad_rows
    for message in (str(raised.value), refetched.reason, bad_row.reason):
        assert mentioned(message) == INSTANCE_IDS
