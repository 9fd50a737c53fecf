"""The code that readers copy out of the guides."""

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.delivery.webhook.signing import new_secret, sign
from tests.docs.pages import ROOT, blocks, files

GUIDES = ROOT / "docs" / "guides"
SECRET = new_secret()
BODY = b'{"to": "ada"}'


def signed(secret: str = SECRET, *, age_seconds: int = 0) -> dict[str, str]:
    timestamp = int(time.time()) - age_seconds
    return {
        "webhook-id": "task-1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign((secret,), "task-1", timestamp, BODY),
    }


@pytest.fixture
def named() -> dict[str, Any]:
    """What the Python blocks of the handler guide define."""
    return names_of("handlers.md")


def names_of(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks(GUIDES / page, "python"):
        exec(block, names)
    return names


def test_the_guide_verifies_with_the_package(named: dict[str, Any]) -> None:
    is_signed: Callable[..., bool] = named["is_signed_says_the_package"]
    believes_only_what_is_signed(is_signed)
    assert not is_signed(SECRET, {**signed(), "webhook-signature": "v1"}, BODY)
    assert not is_signed(SECRET, {**signed(), "webhook-signature": "v1,\u00e4"}, BODY)


def test_the_guide_verifies_without_a_package(named: dict[str, Any]) -> None:
    believes_only_what_is_signed(named["is_signed"])


@pytest.mark.ci
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_guide_verifies_in_node(tmp_path: Path) -> None:
    block = files(GUIDES / "handlers.md")["handler.js"].replace("require.main === module", "false")
    ask = "const [secret, headers, body] = JSON.parse(require('fs').readFileSync(0));"
    say = "console.log(isSigned(secret, headers, Buffer.from(body)));"
    script = tmp_path / "verify.js"
    script.write_text("\n".join((block, ask, say)))

    def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
        given = json.dumps([secret, headers, body.decode()])
        ended = subprocess.run(["node", script], input=given, capture_output=True, text=True, timeout=20, check=True)
        return {"true\n": True, "false\n": False}[ended.stdout]

    believes_only_what_is_signed(is_signed)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_guide_verifies_in_a_shell(shell: str, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(GUIDES / "handlers.md", "sh") if "is_signed()" in block]
    script = tmp_path / "verify.sh"
    script.write_text(f'{block}\nif is_signed "$@"; then echo yes; else echo no; fi\n')

    def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
        given = [headers.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature")]
        command = [shell, str(script), secret, *given]
        ended = subprocess.run(command, input=body, capture_output=True, timeout=20, check=True, cwd=tmp_path)
        return {b"yes\n": True, b"no\n": False}[ended.stdout]

    believes_only_what_is_signed(is_signed)
    assert not is_signed(SECRET, {**signed(), "webhook-signature": "v1,"}, BODY)
    assert not is_signed("whsec_", {**signed(), "webhook-signature": "v1,"}, BODY), (
        "a key that is missing opens nothing"
    )
    assert not is_signed(SECRET, {**signed(), "webhook-timestamp": "a[$(touch seen)]"}, BODY)
    assert not (tmp_path / "seen").exists()


def test_the_guide_books_once_however_often(tmp_path: Path) -> None:
    named = names_of("idempotency.md")
    db: sqlite3.Connection = named["open_books"](str(tmp_path / "books.db"))
    book: Callable[..., int] = named["book"]
    assert [book(db, "one", "ada", 5), book(db, "two", "ada", 2), book(db, "one", "ada", 5)] == [5, 7, 5]
    assert db.execute("select balance from accounts").fetchall() == [(7,)]
    db.close()


def believes_only_what_is_signed(is_signed: Callable[..., bool]) -> None:
    assert is_signed(SECRET, signed(), BODY)
    assert not is_signed(SECRET, signed(), BODY + b" ")
    assert not is_signed(SECRET, signed(new_secret()), BODY)
    assert not is_signed(SECRET, signed(age_seconds=301), BODY)
    for absent in signed():
        assert not is_signed(SECRET, {name: value for name, value in signed().items() if name != absent}, BODY)
    rotating = signed()
    rotating["webhook-signature"] = signed(new_secret())["webhook-signature"] + " " + rotating["webhook-signature"]
    assert is_signed(SECRET, rotating, BODY)
