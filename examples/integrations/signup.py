"""A FastAPI app that enqueues a welcome mail and is also the handler that sends it."""

import os

from fastapi import FastAPI

from sluice_client import Sluice

sluice = Sluice()
app = FastAPI()
app.mount("/tasks", sluice.asgi(secrets=os.environ["WEBHOOK_SECRET"].split()))


@sluice.task(queue="mail", unique="welcome:{user_id}")
async def send_welcome(user_id: int) -> dict[str, int]:
    return {"sent_to": user_id}


@app.post("/signup/{user_id}")
async def signup(user_id: int) -> dict[str, str]:
    task = await send_welcome.dispatch(user_id)
    return {"task": task.id}
