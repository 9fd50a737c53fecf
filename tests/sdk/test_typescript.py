"""TypeScript: types of openapi.json, an enqueue with them, and verify() against the service's signer; all run by node."""

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from app.delivery.webhook.signing import new_secret, sign
from tests.sluices import ROOT, Replica

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

HERE = ROOT / "sdk" / "typescript"
VERIFY = """
import { readFileSync } from "node:fs";
import { verify } from "./dist/src/index.js";
const said = JSON.parse(readFileSync(0, "utf8")).map(({ secrets, body, headers, options }) => {
  try {
    return verify(secrets, Buffer.from(body, "base64"), headers, options).id;
  } catch (error) {
    return error.name;
  }
});
said.push(verify(process.env.SECRET, "text", new Headers(JSON.parse(process.env.HEADERS))).timestamp.toISOString());
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="module")
def built() -> Path:
    """The package as CI installs it, compiled under --strict with its example."""
    assert (HERE / "node_modules").is_dir(), "npm ci --prefix sdk/typescript"
    done = subprocess.run(
        ["npx", "tsc"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return HERE


def test_the_generated_types_are_those_of_the_document(built: Path) -> None:
    done = subprocess.run(
        ["npm", "run", "fresh"],
        cwd=built,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, "run `npm run generate` in sdk/typescript"


def test_the_lock_file_names_no_registry(built: Path) -> None:
    assert "resolved" not in (built / "package-lock.json").read_text()


async def test_a_program_with_these_types_enqueues(built: Path, replica: Replica) -> None:
    process = await asyncio.create_subprocess_exec(
        "node",
        "dist/test/example.js",
        replica.url,
        cwd=built,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    said = json.loads(out)
    assert said["state"] == said["read"] == "scheduled"
    task = (await replica.client.get(f"/tasks/{said['id']}")).json()
    assert task["payload"] == {"to": "ada@example.com"}
    assert task["tags"] == ["welcome"]


def test_verify_accepts_what_the_service_signs_and_nothing_else(built: Path) -> None:
    from base64 import b64encode

    old, new, other, now = new_secret(), new_secret(), new_secret(), int(time.time())
    body = '{"n": "é"}'.encode()

    def case(secrets: Any, signed_with: list[str], *, at: int = now, sent: bytes = body, **changed: Any) -> Any:
        headers = {
            "Webhook-Id": "task-1",
            "webhook-timestamp": str(at),
            "webhook-signature": sign(signed_with, "task-1", at, body),
            **changed.pop("headers", {}),
        }
        return {"secrets": secrets, "body": b64encode(sent).decode(), "headers": headers, **changed}

    good, forged, misused = "task-1", "VerificationError", "TypeError"
    cases = [
        (good, case(new, [new])),
        (good, case([new, old], [old])),
        (good, case(old, [new, old])),
        (good, case(new.rstrip("="), [new])),
        (good, case(new, [new], at=now - 299)),
        (good, case(new, [new], at=now - 3600, options={"toleranceSeconds": 7200})),
        (good, case(new, [new], at=5, options={"now": 5000})),
        (forged, case(other, [new, old])),
        (forged, case([other], [new])),
        (forged, case(new, [new], sent=body + b" ")),
        (forged, case(new, [new], at=now - 302)),
        (forged, case(new, [new], at=now + 302)),
        (forged, case(new, [new], headers={"webhook-timestamp": str(now - 1)})),
        (forged, case(new, [new], headers={"Webhook-Id": "task-2"})),
        (forged, case(new, [new], headers={"Webhook-Id": ["task-1"]})),
        (forged, case(new, [new], headers={"webhook-id": "task-1"})),
        (forged, case(new, [new], headers={"webhook-timestamp": "NaN"})),
        (forged, case(new, [new], headers={"webhook-signature": ""})),
        (
            forged,
            case(new, [new], headers={"webhook-signature": sign([new], "task-1", now, body).replace("v1,", "v2,")}),
        ),
        (forged, case(new, [new], headers={"webhook-signature": "v1,"})),
        (misused, case([], [new])),
        (misused, case("secret", [new])),
        (misused, case("whsec_" + "A" * 8, [new])),
    ]
    headers = {"webhook-id": "t", "webhook-timestamp": str(now), "webhook-signature": sign([new], "t", now, b"text")}
    done = subprocess.run(
        ["node", "--input-type=module", "-e", VERIFY],
        cwd=built,
        input=json.dumps([given for _, given in cases]),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "SECRET": new, "HEADERS": json.dumps(headers)},
        capture_output=True,
        text=True,
        check=True,
    )
    *said, at = json.loads(done.stdout)
    assert [(one, given) for one, (_, given) in zip(said, cases, strict=True)] == cases
    assert at.startswith(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now)))
