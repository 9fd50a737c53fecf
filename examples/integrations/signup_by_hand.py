"""A FastAPI app that enqueues a welcome mail and is also the handler that sends it."""

import base64
import hashlib
import hmac
import json
import os
import time

import httpx2
from fastapi import FastAPI, Request, Response

SECRETS = os.environ["WEBHOOK_SECRET"].split()
KEY = {"authorization": f"Bearer {os.environ['SLUICE_KEY']}"} if "SLUICE_KEY" in os.environ else {}
client = httpx2.AsyncClient(base_url=os.environ.get("SLUICE_URL", "http://127.0.0.1:8080"), headers=KEY)
app = FastAPI()


def is_signed(headers, body: bytes) -> bool:
    sent_at = headers.get("webhook-timestamp", "")
    if not sent_at.isdigit() or abs(time.time() - int(sent_at)) > 300:
        return False
    message = f"{headers.get('webhook-id', '')}.{sent_at}.".encode() + body
    given = headers.get("webhook-signature", "").encode().split()
    for secret in SECRETS:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = b"v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256))
        if any(hmac.compare_digest(one, expected) for one in given):
            return True
    return False


async def send_welcome(user_id: int) -> dict:
    return {"sent_to": user_id}


@app.post("/signup/{user_id}")
async def signup(user_id: int) -> dict:
    task = {"type": "send_welcome", "payload": {"user_id": user_id}, "unique_key": f"welcome:{user_id}"}
    reply = await client.post("/queues/mail/tasks", json=task)
    reply.raise_for_status()
    return {"task": reply.json()["id"]}


@app.post("/tasks")
async def deliver(request: Request) -> Response:
    body = await request.body()
    if not is_signed(request.headers, body):
        return Response("the signature does not match", 401)
    payload = json.loads(body)
    if not isinstance(payload, dict) or not isinstance(payload.get("user_id"), int):
        return Response("user_id is no integer", 422, {"sluice-retry": "no"})
    result = await send_welcome(payload["user_id"])
    return Response(json.dumps(result), media_type="application/json")
