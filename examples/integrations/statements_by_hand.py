"""Every night: list the customers page by page, write a statement for each, and close the month when all are written."""

import base64
import hashlib
import hmac
import json
import os
import time

from fastapi import FastAPI, Request, Response

SECRETS = os.environ["WEBHOOK_SECRET"].split()
CUSTOMERS, PAGE = 250, 100
app = FastAPI()


def is_signed(headers, body: bytes) -> bool:
    sent_at = headers.get("webhook-timestamp", "")
    if not sent_at.isdigit() or abs(time.time() - int(sent_at)) > 300:
        return False
    message = f"{headers.get('webhook-id', '')}.{sent_at}.".encode() + body
    given = headers.get("webhook-signature", "").encode().split()
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in SECRETS]
    expected = [b"v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)) for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in expected)


def list_customers(headers, payload: dict) -> dict:
    after = int(headers.get("sluice-cursor", "0"))
    found = range(after + 1, min(after + PAGE, CUSTOMERS) + 1)
    page = {
        "tasks": [
            {
                "queue": "statements",
                "type": "write_statement",
                "idempotency_key": f"customer-{customer}",
                "payload": {"customer": customer},
            }
            for customer in found
        ],
        "on_complete": {"queue": "closing", "payload": {}},
    }
    if found and found[-1] < CUSTOMERS:
        page["next"] = str(found[-1])
    return page


def write_statement(headers, payload: dict) -> dict:
    return {"written": payload["customer"]}


def close_month(headers, payload: dict) -> dict:
    return {"closed": headers["sluice-batch"]}


WORK = {"nightly": list_customers, "statements": write_statement, "closing": close_month}


@app.post("/tasks")
async def deliver(request: Request) -> Response:
    body = await request.body()
    if not is_signed(request.headers, body):
        return Response("the signature does not match", 401)
    work = WORK[request.headers["sluice-queue"]]
    answer = work(request.headers, json.loads(body))
    follows = "application/vnd.sluice.tasks+json" if work is list_customers else "application/json"
    return Response(json.dumps(answer), media_type=follows)
