"""The admin: a look at topics, events and connections; nothing can be changed there."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from livefeed import publish
from livefeed.leases import Claim, LeaseRequest, get_leases
from livefeed.models import Lease, StoredEvent, StoredTopic

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
    assert "0 of" not in admin_client.get(listing(name), {"q": word}).text


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
    assert text.count("user:7") == 1
    assert '<td class="field-claimed">3</td>' in text
    assert admin_client.get(listing("lease"), {"o": "3"}).status_code == 200


def test_the_index_names_the_app(admin_client: Client) -> None:
    assert "Live feeds" in admin_client.get(reverse("admin:index")).text
