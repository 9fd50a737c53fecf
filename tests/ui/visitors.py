"""People who visit the pages, as far as cookies and forms go."""

import re
from html import unescape
from typing import Any

import httpx2

from app.domain.keys import Grant
from app.service import keys
from tests.sluices import Replica

OWN = {"sec-fetch-site": "same-origin"}


class Visitor:
    """Somebody with cookies, whom a proxy would serve under /sluice."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.url = replica.url
        self.cookies: dict[str, str] = {}
        self.client = replica.client
        self.key = ""

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._send("GET", path, headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> httpx2.Response:
        return await self._send("POST", path, {**OWN, **headers}, form)

    async def _send(
        self, method: str, path: str, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> httpx2.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        found = await self.client.request(
            method, f"{self.url}{path}", headers={"cookie": cookie, **headers}, data=form, follow_redirects=False
        )
        for line in found.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return found

    async def api(self, method: str, path: str, body: str | None = None) -> Any:
        """Ask the API with the same key."""
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        found = await self.client.request(method, self.url + path, headers=headers, content=body)
        assert found.is_success, found.text
        return found.json()

    async def token(self, path: str) -> str:
        found = re.search('name="token" value="([0-9a-f]+)"', (await self.get(path)).text)
        assert found is not None
        return found[1]

    async def form(self, path: str) -> dict[str, str]:
        """Return what the last form of a page that is sent by POST would send, as it stands."""
        page = (await self.get(path)).text
        form = re.findall('<form[^>]*method="post".*?</form>', page, re.DOTALL)[-1]
        fields = dict(re.findall('<input(?=[^>]* name="([^"]+)")[^>]* value="([^"]*)"', form))
        fields |= dict(re.findall(r'<textarea name="([^"]+)"[^>]*>\n(.*?)</textarea>', form, re.DOTALL))
        return {name: unescape(value) for name, value in fields.items()}

    async def sign_in(self, key: str) -> httpx2.Response:
        return await self.post("/ui/login", {"token": await self.token("/ui/login"), "key": key, "next": "/queues"})


async def key_of(replica: Replica, scope: str, tenant: str = "default") -> str:
    return (await keys.create(replica.sluice.core.db, tenant, Grant(scope))).token


async def visitor(replica: Replica, scope: str = "operate", tenant: str = "default") -> Visitor:
    """Somebody who has signed in."""
    found = Visitor(replica)
    found.key = await key_of(replica, scope, tenant)
    signed_in = await found.sign_in(found.key)
    assert signed_in.status_code == 303
    return found
