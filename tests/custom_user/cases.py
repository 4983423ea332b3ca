"""What works for any user works for these: run by tests/test_custom_user.py, in a process with their settings."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.core.management.commands.check import Command as Check
from django.test import AsyncClient
from django.urls import reverse

from livefeed import apublish, create_token
from livefeed.models import Lease
from livefeed.roster import Roster
from livefeed.testing import EventStreamClient, open_stream
from livefeed.tokens import read_token
from livefeed.topics import sign_topic, viewer_key
from tests.custom_user.models import Member

pytest_plugins = ["tests.reading_fixtures"]

BOARD = "board:news"


@sync_to_async
def new_member(name: str = "ann") -> Member:
    return Member.objects.create_member(f"{name}@example.com", "secret", boards=["news"])


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def reads(stream: EventStreamClient, topic: str) -> None:
    """Check that an open stream has a topic and gets its events."""
    assert topic in (await stream.next()).json["topics"]
    await apublish(topic, {"n": 1})
    assert (await stream.next()).json == {"n": 1}


async def closing(stream: EventStreamClient) -> Any:
    while (event := await stream.next()).type != "livefeed-closing":
        pass
    return event.json


def test_the_checks_have_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    call_command(Check(), tags=["livefeed"])
    assert "no issues" in capsys.readouterr().out + capsys.readouterr().err


async def test_a_session_a_rule_and_a_lease(roster: Roster) -> None:
    member = await new_member()
    async with open_stream(BOARD, user=member) as stream:
        await reads(stream, BOARD)
        lease = await Lease.objects.aget()
        assert lease.holder == f"user:{member.uid}"


async def test_who_is_nobody_is_refused(roster: Roster, async_client: AsyncClient) -> None:
    response = await async_client.get(
        reverse("livefeed:stream"), {"topic": BOARD}, headers={"accept": "text/event-stream"}
    )
    assert response.status_code == 404


async def test_a_feed_without_a_rule_is_closed_to_users_without_permissions(
    roster: Roster, async_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await async_client.aforce_login(await new_member())
    sent = {"accept": "text/event-stream"}
    response = await async_client.get(reverse("livefeed:stream"), {"topic": "custom_user.member"}, headers=sent)
    assert response.status_code == 404
    assert "failed" not in caplog.text


async def test_a_signed_name_is_the_member_s_alone(roster: Roster) -> None:
    ann, bob = await new_member(), await new_member("bob")
    name = sign_topic("export:7", viewer_key(ann, None))
    async with open_stream(name, BOARD, user=ann) as stream:
        assert (await stream.next()).json["topics"] == ["export:7", BOARD]
    async with open_stream(name, BOARD, user=bob) as stream:
        assert (await stream.next()).json["refused"] == [name]


async def test_a_token(roster: Roster) -> None:
    text = await sync_to_async(create_token)(await new_member(), [BOARD, "job:1"], max_age=60)
    async with open_stream(BOARD, "job:1", "board:other", headers=bearer(text)) as stream:
        opening = (await stream.next()).json
        assert (opening["topics"], opening["refused"]) == ([BOARD, "job:1"], ["board:other"])


async def _block(member: Member) -> None:
    member.blocked = True
    await member.asave()


async def _new_password(member: Member) -> None:
    member.set_password("another")
    await member.asave()


async def _delete(member: Member) -> None:
    await member.adelete()


async def _leave(member: Member) -> None:
    member.boards = []
    await member.asave()


async def _log_out(member: Member) -> None:
    await Session.objects.all().adelete()


@pytest.mark.parametrize("end", [_block, _new_password, _delete, _leave, _log_out])
async def test_a_stream_by_session_ends_with_its_right(roster: Roster, settings: Any, end: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    member = await new_member()
    async with open_stream(BOARD, user=member) as stream:
        await reads(stream, BOARD)
        await end(member)
        assert await closing(stream) == {"reason": "revoked"}


@pytest.mark.parametrize("end", [_block, _new_password, _delete, _leave])
async def test_a_stream_by_token_ends_with_its_right(roster: Roster, settings: Any, end: Any) -> None:
    settings.LIVEFEED_RECHECK_INTERVAL = 0.05
    member = await new_member()
    text = await sync_to_async(create_token)(member, max_age=60)
    async with open_stream(BOARD, headers=bearer(text)) as stream:
        await reads(stream, BOARD)
        await end(member)
        assert await closing(stream) == {"reason": "revoked"}


@pytest.mark.django_db
def test_livefeed_token(capsys: pytest.CaptureFixture[str]) -> None:
    member = Member.objects.create_member("ann@example.com", "secret")
    for arguments in (["ann@example.com"], ["--id", str(member.uid)]):
        call_command("livefeed_token", *arguments)
        token = read_token(capsys.readouterr().out.strip())
        assert token is not None
        assert token.user_id == str(member.uid)
    for arguments, words in (
        (["bob@example.com"], "no user with the email"),
        (["--id", "7"], "no user with the primary"),
    ):
        with pytest.raises(CommandError, match=words):
            call_command("livefeed_token", *arguments)
