"""Writes the generated files of the Python client: `python -m app.cli.sdk [--check]`."""

import json
import subprocess
import sys
from pathlib import Path

from app.cli.sdk.blocking import WAITING, blocking
from app.cli.sdk.names import GROUPS
from app.cli.sdk.operations import all_operations, group_source
from app.cli.sdk.schemas import Types

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "sdk" / "python" / "sluice_client"
DOCUMENT = ROOT / "openapi" / "openapi.json"
HAND_WRITTEN = ("client", "events", "group", "pages")
"""Files of `api/` that are not generated, but whose blocking form is."""


def files() -> dict[Path, str]:
    """Return the content of each generated file."""
    document = json.loads(DOCUMENT.read_text())
    found = all_operations(document)
    groups = {
        group: formatted(group_source(group, [operation for operation in found if operation.group == group]))
        for group in GROUPS
    }
    api = PACKAGE / "api"
    written = {PACKAGE / "models.py": formatted(Types(document).models())}
    written |= {api / f"{group}.py": source for group, source in groups.items()}
    sources = groups | {name: (api / f"{name}.py").read_text() for name in HAND_WRITTEN}
    written |= {api / "blocking" / f"{name}.py": formatted(blocking(source)) for name, source in sources.items()}
    tasks = PACKAGE / "tasks"
    written |= {
        tasks / "blocking" / f"{name}.py": formatted(blocking((tasks / f"{name}.py").read_text())) for name in WAITING
    }
    written[PACKAGE / "sync_sluice.py"] = formatted(blocking((PACKAGE / "sluice.py").read_text()))
    written[PACKAGE / "sync_transport.py"] = formatted(blocking((PACKAGE / "transport.py").read_text()))
    return written


def formatted(source: str) -> str:
    """Return it as `ruff` wants it: imports in order, lines broken."""
    name = str(PACKAGE / "generated.py")
    for command in (["check", "--quiet", "--fix", "--unsafe-fixes", "--select", "I,F401,UP028"], ["format"]):
        ruff = [str(Path(sys.executable).with_name("ruff")), *command, "--stdin-filename", name, "-"]
        source = subprocess.run(ruff, input=source, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return source


def main(arguments: list[str]) -> int:
    written = files()
    if arguments == ["--check"]:
        stale = [file for file, source in written.items() if not file.exists() or file.read_text() != source]
        for file in stale:
            print(f"{file.relative_to(ROOT)} is not what is generated: run make openapi")
        return 1 if stale else 0
    for file, source in written.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
