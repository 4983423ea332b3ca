"""The admin and the command line: a look at topics, events and connections, which can be closed, and no more."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from livefeed import broker, publish
from livefeed.leases import Claim, LeaseRequest, get_leases
from livefeed.models import Lease, StoredEvent, StoredTopic
from livefeed.revocations import Revocation

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = {"storedtopic": StoredTopic, "storedevent": StoredEvent, "lease": Lease}


@pytest.fixture
def rows() -> None:
    publish("build:42", {"percent": 70}, type="progress")
    publish("build:43", {"text": "<b>"})
    Lease.objects.create(
        holder="user:7", token="t", client="c", process="p", topics="build:42", expires_at="2030-01-01T00:00Z"
    )


def listing(name: str) -> str:
    return reverse(f"admin:livefeed_{name}_changelist")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("storedtopic", ["build:42", "build:43"]), ("storedevent", ["progress", "build:43"]), ("lease", ["user:7"])],
)
def test_each_list_shows_what_there_is(admin_client: Client, rows: None, name: str, shown: list[str]) -> None:
    text = admin_client.get(listing(name)).text
    for word in shown:
        assert word in text


@pytest.mark.parametrize("name", MODELS)
def test_each_row_can_be_looked_at_and_not_be_changed(admin_client: Client, rows: None, name: str) -> None:
    row = MODELS[name].objects.first()
    assert row is not None
    page = reverse(f"admin:livefeed_{name}_change", args=[row.pk])
    response = admin_client.get(page)
    assert response.status_code == 200
    assert 'name="_save"' not in response.text
    assert "<b>" not in response.text
    before = list(MODELS[name].objects.values())
    assert admin_client.post(page, {"name": "other", "head": 99}).status_code == 403
    assert list(MODELS[name].objects.values()) == before


@pytest.mark.parametrize("name", MODELS)
def test_nothing_can_be_added_or_deleted(admin_client: Client, rows: None, name: str) -> None:
    row = MODELS[name].objects.first()
    assert row is not None
    assert admin_client.get(reverse(f"admin:livefeed_{name}_add")).status_code == 403
    assert (
        admin_client.post(reverse(f"admin:livefeed_{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    )
    admin_client.post(listing(name), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert MODELS[name].objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize(("name", "word"), [("storedtopic", "42"), ("storedevent", "build:42"), ("lease", "user:7")])
def test_the_lists_can_be_searched(admin_client: Client, rows: None, name: str, word: str) -> None:
    text = admin_client.get(listing(name), {"q": word}).text
    assert "42" in text
    assert "build:43" not in text
    assert "0 results" not in text
    assert "0 results" in admin_client.get(listing(name), {"q": "nothing of the kind"}).text


def test_events_can_be_filtered_by_type(admin_client: Client, rows: None) -> None:
    text = admin_client.get(listing("storedevent"), {"type": "progress"}).text
    assert "build:42" in text
    assert "build:43" not in text


@pytest.mark.parametrize("name", MODELS)
def test_staff_without_the_permission_sees_nothing(client: Client, rows: None, name: str) -> None:
    user = User.objects.create_user("ann", is_staff=True)
    client.force_login(user)
    assert client.get(listing(name)).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename=f"view_{name}"))
    assert client.get(listing(name)).status_code == 200


def test_a_topic_and_an_event_say_what_they_are(rows: None) -> None:
    assert str(StoredTopic.objects.get(name="build:42")) == "build:42"
    assert str(StoredEvent.objects.get(topic="build:42")) == "build:42 1 progress"
    assert str(Lease.objects.get()) == "user:7"


def test_a_connection_is_one_line_however_many_claims_it_has(admin_client: Client) -> None:
    claims = (Claim("user:7", 5), Claim("topic:build", 9), Claim("topic:news", 0))
    get_leases().acquire(LeaseRequest(claims, client="", process="p"))
    text = admin_client.get(listing("lease")).text
    assert text.count('class="field-holder') == 1
    assert '<td class="field-claimed">3</td>' in text
    assert admin_client.get(listing("lease"), {"o": "3"}).status_code == 200


def test_the_index_names_the_app(admin_client: Client) -> None:
    assert "Live feeds" in admin_client.get(reverse("admin:index")).text


# -- connections can be closed ----------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Revocation]:
    """What the other processes are told."""
    told: list[Revocation] = []
    monkeypatch.setattr(broker, "tell", told.append)
    return told


def connection(user: User, *topics: str) -> str:
    """Return the token of a live connection."""
    return get_leases().acquire(LeaseRequest((Claim(f"user:{user.pk}", 0),), "", "here", "", topics))


def press(client: Client, *tokens: str) -> str:
    keys = Lease.objects.filter(token__in=tokens).values_list("pk", flat=True)
    data = {"action": "disconnect", "_selected_action": list(keys)}
    return client.post(listing("lease"), data, follow=True).text


def test_the_button_closes_the_connections_that_were_chosen(
    admin_client: Client, admin_user: User, told: list[Revocation]
) -> None:
    one, two, other = (connection(admin_user, "build:42") for _ in range(3))
    assert "2 connections are closed." in press(admin_client, one, two)
    assert list(Lease.objects.values_list("token", flat=True)) == [other]
    (revocation,) = told
    assert (set(revocation.leases), revocation.close) == ({one, two}, True)
    assert "1 connection is closed." in press(admin_client, other)


def test_the_button_is_there_for_those_only_who_may_delete_connections(
    client: Client, admin_user: User, told: list[Revocation]
) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_lease"))
    client.force_login(user)
    token = connection(admin_user)
    told.clear()  # the permission was news
    assert "Disconnect" not in client.get(listing("lease")).text
    press(client, token)
    assert (Lease.objects.count(), told) == (1, [])
    user.user_permissions.add(Permission.objects.get(codename="delete_lease"))
    told.clear()  # the permission was news
    assert "Disconnect" in client.get(listing("lease")).text
    press(client, token)
    assert (Lease.objects.count(), [revocation.leases for revocation in told]) == (0, [(token,)])


def test_the_command_lists_who_is_connected(admin_user: User, capsys: pytest.CaptureFixture[str]) -> None:
    other = User.objects.create_user("ann")
    connection(admin_user, "build:42", "plain")
    connection(other, "build:4")
    call_command("livefeed_connections")
    out, err = capsys.readouterr()
    assert [line.split("  ")[1:] for line in out.splitlines()] == [
        [f"user:{admin_user.pk}", "build:42 plain"],
        [f"user:{other.pk}", "build:4"],
    ]
    assert err == "2 connections.\n"
    call_command("livefeed_connections", user="ann")
    assert capsys.readouterr().out.count("\n") == 1
    call_command("livefeed_connections", topic="build:42")
    assert capsys.readouterr().out.count("\n") == 1


def test_the_command_closes_whom_it_is_told(
    admin_user: User, told: list[Revocation], capsys: pytest.CaptureFixture[str]
) -> None:
    other = User.objects.create_user("ann")
    connection(admin_user, "build:42"), connection(other, "build:42"), connection(other, "plain")
    call_command("livefeed_connections", user="ann", topic="build:42", disconnect=True)
    assert capsys.readouterr().err == "1 connections are closed.\n"
    assert told == [Revocation(f"user:{other.pk}", topic="build:42", close=True)]
    assert sorted(Lease.objects.values_list("topics", flat=True)) == ["build:42", "plain"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"disconnect": True}, "Add --user or --topic"),
        ({"user": "nobody"}, "no user with the username 'nobody'"),
        ({"topic": "no topic"}, "is not a topic name"),
    ],
)
def test_the_command_refuses_what_can_t_be_meant(options: dict[str, object], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        call_command("livefeed_connections", **options)
