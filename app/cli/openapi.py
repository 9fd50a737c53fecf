"""Writes openapi/openapi.json, the golden wire contract: `python -m app.cli.openapi [--check]`."""

import json
import sys
from pathlib import Path
from typing import Any, cast

from app.api.app import create_app
from app.domain.callers import Caller
from app.edge.config import EdgeConfig
from app.runtime.core import Core
from app.version import VERSION

FILE = Path(__file__).parents[2] / "openapi" / "openapi.json"


async def _nobody(_token: str) -> Caller:
    raise NotImplementedError("the document is generated without a service behind it")


def document() -> str:
    edge = EdgeConfig(operations=cast(Any, None), authenticate=_nobody, version=VERSION)
    return json.dumps(create_app(cast(Core, None), edge).application.openapi(), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        if FILE.exists() and FILE.read_text() == document():
            return 0
        print(f"{FILE.name} differs from the code: run make openapi, and read the difference as a caller would")
        return 1
    FILE.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
