"""Who may call: what the signature covers, how old it may be, and which secrets count."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from app.delivery.webhook.signing import new_secret, sign
from sluice_client.serving.verify import NotSigned, Verifier

NEW, OLD, OTHER = new_secret(), new_secret(), new_secret()
BODY = b'{"n": 1}'


def headers(secrets: list[str], body: bytes = BODY, *, at: float | None = None, task: str = "id-1") -> dict[str, str]:
    seconds = int(time.time() if at is None else at)
    signature = sign(secrets, task, seconds, body)
    return {"webhook-id": task, "webhook-timestamp": str(seconds), "webhook-signature": signature}


@pytest.mark.parametrize("known", [[NEW], [NEW, OLD], [OLD, NEW]])
@pytest.mark.parametrize("used", [[NEW], [NEW, OLD], [OTHER, NEW]])
def test_a_request_counts_if_any_of_its_signatures_is_by_any_secret(known: list[str], used: list[str]) -> None:
    assert Verifier(known).check(headers(used), BODY) == pytest.approx(time.time(), abs=2)


def test_what_the_service_signs_is_what_the_standard_says() -> None:
    at = datetime.now(UTC)
    theirs = Webhook(NEW).sign("id-1", at, BODY.decode())
    found = {"webhook-id": "id-1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": theirs}
    Verifier([NEW]).check(found, BODY)


def test_a_request_that_was_changed_or_is_by_somebody_else_is_refused() -> None:
    good = headers([NEW])
    for changed, body in [
        (good, b'{"n": 2}'),
        (good | {"webhook-id": "id-2"}, BODY),
        (good | {"webhook-timestamp": str(int(good["webhook-timestamp"]) - 1)}, BODY),
        (headers([OTHER]), BODY),
        (good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")}, BODY),
        (good | {"webhook-signature": good["webhook-signature"].removeprefix("v1,")}, BODY),
        (good | {"webhook-signature": " ".join(["v1,AAAA"] * 16) + " " + good["webhook-signature"]}, BODY),
    ]:
        with pytest.raises(NotSigned):
            Verifier([NEW, OLD]).check(changed, body)


@pytest.mark.parametrize("seconds", [-301, 302, -1e9])
def test_a_replay_or_a_request_from_the_future_is_refused(seconds: float) -> None:
    with pytest.raises(NotSigned, match="300 seconds"):
        Verifier([NEW]).check(headers([NEW], at=time.time() + seconds), BODY)
    Verifier([NEW]).check(headers([NEW], at=time.time() - 295), BODY)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "½", "-1", "9" * 13, "1e3"])
def test_headers_that_are_missing_or_malformed_are_refused(name: str, value: str | None) -> None:
    given = headers([NEW])
    if value is None:
        del given[name]
    else:
        given[name] = value
    with pytest.raises(NotSigned):
        Verifier([NEW]).check(given, BODY)


@given(
    st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()), st.binary()
)
def test_garbage_is_refused_and_nothing_else_is_raised(garbage: dict[str, str], body: bytes) -> None:
    with pytest.raises(NotSigned):
        Verifier([NEW]).check(headers([NEW]) | {"webhook-signature": "v1,"} | garbage, body)


@pytest.mark.parametrize(
    "secrets",
    [[], "whsec_", [""], ["whsec_"], ["whsec_c2hvcnQ="], ["whsec_%%%"], [NEW.removeprefix("whsec_")], [NEW, ""]],
)
def test_a_mount_without_real_secrets_cannot_be_made(secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Verifier(secrets)
