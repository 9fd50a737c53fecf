"""A worker that pulls its tasks, makes thumbnails, and reports how it went."""

import os
import time

import httpx2

KEY = {"authorization": f"Bearer {os.environ['SLUICE_KEY']}"} if "SLUICE_KEY" in os.environ else {}
client = httpx2.Client(base_url=os.environ.get("SLUICE_URL", "http://127.0.0.1:8080"), headers=KEY, timeout=70)


def make_thumb(image: str, width: int) -> dict:
    return {"thumb": f"{image}@{width}"}


def settle(task: dict, verb: str, body: dict) -> None:
    client.post(f"/tasks/{task['id']}/{verb}", json=body, headers={"sluice-lease-token": task["lease_token"]})


while True:
    try:
        reply = client.post("/queues/thumbs/leases", json={"wait_seconds": 50, "lease_seconds": 300})
        reply.raise_for_status()
    except httpx2.HTTPError as error:
        print(error)
        time.sleep(1)
        continue
    for task in reply.json()["tasks"]:
        try:
            result = make_thumb(**task["payload"])
        except Exception as error:
            settle(task, "fail", {"error": repr(error)[:2000]})
        else:
            settle(task, "complete", {"result": result})
