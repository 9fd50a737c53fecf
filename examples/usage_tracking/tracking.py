"""Usage tracking: an API answers, and what the call has used is recorded, priced and reported afterwards, in groups.

    EVENTS_URL=http://127.0.0.1:9100 WEBHOOK_SECRET=whsec_… python tracking.py

`POST /chat/inline` is how it was before: its caller waits until all of that is done. `POST /chat` enqueues three tasks
instead. More settings: USAGE_DB (usage.db), SLUICE_URL, SLUICE_KEY, HOST (127.0.0.1), PORT (9000).
"""

import asyncio
import json
import os
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from uuid import uuid4

import httpx2
import uvicorn
from fastapi import FastAPI, Request, Response

from sluice_client import NotSigned, Sluice, Verifier

CENTS_PER_MILLION_TOKENS = {"small": 40, "large": 900}
SCHEMA = """
create table if not exists usage (call text primary key, model text, tokens integer);
create table if not exists costs (call text primary key, microcents integer);
"""
sluice = Sluice()
events = httpx2.AsyncClient(base_url=os.environ.get("EVENTS_URL", "http://127.0.0.1:9100"), trust_env=False)
verifier = Verifier(os.environ["WEBHOOK_SECRET"].split())
app = FastAPI()


@dataclass(frozen=True)
class Usage:
    call: str
    model: str
    tokens: int


# What is done for many calls at once. Each is safe to repeat: a call has one row, and an event is known by its call.


async def record(usages: Sequence[Usage]) -> None:
    rows = [(one.call, one.model, one.tokens) for one in usages]
    await asyncio.to_thread(insert, "insert or ignore into usage values (?, ?, ?)", rows)


async def price(usages: Sequence[Usage]) -> None:
    rows = [(one.call, one.tokens * CENTS_PER_MILLION_TOKENS[one.model]) for one in usages]
    await asyncio.to_thread(insert, "insert or ignore into costs values (?, ?)", rows)


async def report(usages: Sequence[Usage]) -> None:
    (await events.post("/events", json=[asdict(one) for one in usages])).raise_for_status()


def insert(statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(os.environ.get("USAGE_DB", "usage.db"))) as db, db:
        db.executescript(SCHEMA)
        db.executemany(statement, rows)


# The tasks. Sluice delivers them in groups, to the route below; a test that runs one alone runs it as it stands.


@sluice.task(queue="usage", priority=80)
async def track_llm_usage(usage: Usage) -> None:
    await record([usage])


@sluice.task(queue="usage", priority=80)
async def calculate_costs(usage: Usage) -> None:
    await price([usage])


@sluice.task(queue="events", priority=80)
async def send_events(usage: Usage) -> None:
    await report([usage])


BY_TYPE = {"track_llm_usage": record, "calculate_costs": price, "send_events": report}


@app.post("/groups")
async def groups(request: Request) -> Response:
    body = await request.body()
    try:
        verifier.check(request.headers, body)
    except NotSigned:
        return Response(status_code=401)
    tasks = json.loads(body)["tasks"]
    try:
        for type, do in BY_TYPE.items():
            usages = [Usage(**task["payload"]["usage"]) for task in tasks if task["type"] == type]
            if usages:
                await do(usages)
    except httpx2.HTTPError:
        return Response(status_code=503)  # a push-back: the tasks wait, and no attempt of theirs is spent
    return Response()


# The API.


async def complete(prompt: str) -> tuple[str, Usage]:
    """Stands in for the call of a language model."""
    return prompt.upper(), Usage(call=str(uuid4()), model="small", tokens=len(prompt.split()))


@app.post("/chat/inline")
async def chat_inline(prompt: str) -> dict[str, str]:
    reply, usage = await complete(prompt)
    await record([usage])
    await price([usage])
    await report([usage])
    return {"reply": reply}


@app.post("/chat")
async def chat(prompt: str) -> dict[str, str]:
    reply, usage = await complete(prompt)
    await sluice.dispatch_many([track_llm_usage.call(usage), calculate_costs.call(usage), send_events.call(usage)])
    return {"reply": reply}


def main() -> None:
    listening = socket.create_server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))))
    host, port = listening.getsockname()
    print(f"listening on http://{host}:{port}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
