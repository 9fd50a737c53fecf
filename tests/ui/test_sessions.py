"""Sessions, the tokens of forms, and the headers of pages."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from app.service import keys
from app.settings import Settings
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with
from tests.ui.visitors import Visitor, key_of, visitor
from tests.wire.api import fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@pytest.fixture(scope="module")
async def guarded(server_url: str) -> AsyncIterator[Replica]:
    """A replica that asks for keys, under a path of its own."""
    name = fresh("sluice_test").replace("-", "_")
    given = {
        "database_url": await create_database(server_url, name),
        "port": 0,
        "drain_grace_seconds": 0,
        "auth": "on",
        "public_url": "https://queues.example.com/sluice",
        "ui_label": "production:red",
    }
    async with replica_with(Settings.model_validate(given)) as replica:
        yield replica
    await drop_database(server_url, name)


async def test_a_key_is_exchanged_for_a_cookie_that_scripts_and_other_sites_cannot_use(guarded: Replica) -> None:
    stranger = Visitor(guarded)
    sent_away = await stranger.get("/ui/queues?cursor=x")
    assert sent_away.status_code == 303
    assert sent_away.headers["location"] == "/sluice/ui/login?next=%2Fqueues%3Fcursor%3Dx"
    key = await key_of(guarded, "use")
    signed_in = await stranger.sign_in(key)
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/sluice/ui/queues")
    [cookie] = [line for line in signed_in.headers.get_list("set-cookie") if line.startswith("sluice_session=")]
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        "httponly", "secure", "samesite=strict", "path=/sluice/ui", "max-age=43200",
    }  # fmt: skip
    assert key not in cookie
    assert (await stranger.get("/ui/queues")).status_code == 200


async def test_a_wrong_key_is_told_from_a_right_one_and_sets_no_session(guarded: Replica) -> None:
    stranger = Visitor(guarded)
    refused = await stranger.sign_in("slk_" + "x" * 40)
    assert refused.status_code == 401
    assert "sluice_session" not in stranger.cookies


async def test_a_session_that_somebody_planted_is_not_taken_over(guarded: Replica) -> None:
    victim = Visitor(guarded)
    victim.cookies["sluice_session"] = planted = "p" * 43
    assert (await victim.sign_in(await key_of(guarded, "use"))).status_code == 303
    assert victim.cookies["sluice_session"] != planted
    other = Visitor(guarded)
    other.cookies["sluice_session"] = planted
    assert (await other.get("/ui")).status_code == 303


async def test_a_session_ends_by_signing_out_and_with_its_key(guarded: Replica) -> None:
    one = await visitor(guarded)
    cookie = dict(one.cookies)
    assert (await one.post("/ui/logout", {"token": await one.token("/ui")})).status_code == 303
    one.cookies = cookie
    assert (await one.get("/ui")).status_code == 303

    key = await key_of(guarded, "use")
    other = Visitor(guarded)
    await other.sign_in(key)
    assert (await other.get("/ui")).status_code == 200
    await keys.revoke(guarded.sluice.core.db, key.split("_")[1])
    assert (await other.get("/ui")).status_code == 303


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"sec-fetch-site": "cross-site"}, "own"),
        ({"sec-fetch-site": "same-site"}, "own"),
        ({"sec-fetch-site": "none"}, "own"),
        ({"origin": "https://evil.example"}, "own"),
        ({"origin": "null"}, "own"),
        ({}, ""),
        ({}, "0" * 32),
        ({"sec-fetch-site": "same-origin"}, "of another session"),
    ],
)
async def test_a_form_that_no_page_of_this_session_sent_changes_nothing(
    guarded: Replica, headers: dict[str, str], token: str
) -> None:
    one = await visitor(guarded)
    tokens = {"own": one, "of another session": await visitor(guarded)}
    given = await tokens[token].token("/ui") if token in tokens else token
    cookie = "; ".join(f"{name}={value}" for name, value in one.cookies.items())
    refused = await one.client.post(
        f"{one.url}/ui/logout", headers={"cookie": cookie, **headers}, data={"token": given}
    )
    assert refused.status_code == 403
    assert (await one.get("/ui")).status_code == 200


async def test_pages_allow_nothing_from_elsewhere_and_are_kept_by_no_cache(guarded: Replica) -> None:
    one = await visitor(guarded)
    for path in ("/ui", "/ui/queues", "/ui/login", "/ui/nowhere"):
        found = await one.get(path)
        assert found.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert found.headers["cache-control"] == "no-store"
        assert found.headers["referrer-policy"] == "same-origin"
        assert ' style="' not in found.text
        assert "<script>" not in found.text


async def test_every_address_on_a_page_lies_below_the_path_of_the_public_url(guarded: Replica) -> None:
    one = await visitor(guarded)
    for path in ("/ui", "/ui/queues"):
        addresses = re.findall('(?:href|src|action)="([^"#][^"]*)"', (await one.get(path)).text)
        assert addresses
        assert all(found.startswith("/sluice/ui") for found in addresses), addresses


async def test_style_and_script_are_kept_for_good_and_sent_compressed(guarded: Replica) -> None:
    page = (await Visitor(guarded).get("/ui/login")).text
    [style] = re.findall(r'href="/sluice(/ui/static/sluice-[0-9a-f]+\.css)"', page)
    found = await guarded.client.get(style, headers={"accept-encoding": "gzip"})
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["content-encoding"] == "gzip"
    assert found.headers["content-type"] == "text/css; charset=utf-8"
    assert (await guarded.client.get(style, headers={"accept-encoding": "identity"})).text == found.text
    assert (await guarded.client.get("/ui/static/sluice-000.css")).status_code == 404


async def test_the_label_stands_on_every_page(guarded: Replica) -> None:
    one = await visitor(guarded)
    for path in ("/ui", "/ui/queues", "/ui/login", "/ui/nowhere"):
        assert '<span class="label label-red">production</span>' in (await one.get(path)).text


async def test_without_authentication_no_key_is_asked_for_but_forms_need_their_token(replica: Replica) -> None:
    one = Visitor(replica)
    assert (await one.get("/ui")).status_code == 200
    assert (await one.get("/ui/login")).headers["location"] == "/ui"
    assert (await one.post("/ui/logout", {"token": "x"})).status_code == 403


async def test_the_pages_can_be_left_out(start_replica: Callable[..., Awaitable[Replica]]) -> None:
    without = await start_replica(ui="off")
    assert (await without.client.get("/ui")).status_code == 404
    assert (await without.client.get("/ui/login")).status_code == 404


def test_what_others_wrote_comes_with_its_licence() -> None:
    vendor = Path(__file__).parents[2] / "app/ui/vendor"
    for folder in vendor.iterdir():
        assert (folder / "LICENSE").read_text().strip(), folder
