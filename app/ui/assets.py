"""The style sheet and the script of the pages, each one file, put together once when the process starts.

Their names contain a digest of their content, so that browsers keep them for good, and a new release is seen at once. The script
is one file because htmx and its extension, loaded as two, race for the first update.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from app.domain.errors import Refusal

HERE = Path(__file__).parent
STYLES = ("vendor/uplot/uPlot.min.css", "static/sluice.css")
SCRIPTS = (
    "vendor/htmx/htmx.min.js",
    "vendor/htmx/hx-sse.min.js",
    "vendor/uplot/uPlot.iife.min.js",
    "static/sluice.js",
)
ICON = ("static/sluice.svg",)
KEPT = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    name: str
    media_type: str
    content: bytes
    compressed: bytes


def _asset(stem: str, ending: str, media_type: str, files: tuple[str, ...]) -> Asset:
    content = b"\n".join((HERE / file).read_bytes() for file in files)
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(f"{stem}-{digest}.{ending}", media_type, content, gzip.compress(content, 9, mtime=0))


class Assets:
    """What pages refer to."""

    def __init__(self) -> None:
        self.style = _asset("sluice", "css", "text/css; charset=utf-8", STYLES)
        self.script = _asset("sluice", "js", "text/javascript; charset=utf-8", SCRIPTS)
        self.icon = _asset("sluice", "svg", "image/svg+xml", ICON)
        self._all = {asset.name: asset for asset in (self.style, self.script, self.icon)}

    async def serve(self, request: Request) -> Response:
        asset = self._all.get(request.path_params["name"])
        if asset is None:
            raise Refusal("not_found", "there is no such file; reload the page")
        headers = {"cache-control": KEPT, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                asset.compressed, headers={**headers, "content-encoding": "gzip"}, media_type=asset.media_type
            )
        return Response(asset.content, headers=headers, media_type=asset.media_type)
