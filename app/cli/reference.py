"""Writes docs/reference from the code, so that the two cannot differ: `python -m app.cli.reference [--check]`."""

import sys
from collections.abc import Callable
from pathlib import Path

from app.settings import SECRETS, Settings

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Generated from `app/settings.py`. Each is an environment variable; an empty one counts as not set.",
        "`sluice config` shows the values in force and where they come from. Contradictions refuse to start.",
        "",
        "| variable | default | bounds | why |",
        "|---|---|---|---|",
    ]
    for knob in Settings.model_construct().describe():
        variable = f"`{knob.variable}`" + (f" (or `{knob.variable}_FILE`)" if knob.name in SECRETS else "")
        default = f"`{knob.default}`" if knob.default and " " not in knob.default else knob.default
        cells = (variable, default, knob.bounds.replace("|", "\\|"), knob.why)
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "`SLUICE_…_FILE` names a file that holds the value, as orchestrators mount secrets.",
        "Traces are sent when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, as OpenTelemetry defines it.",
    ]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"settings.md": settings_page}


def main(arguments: list[str]) -> int:
    check = arguments == ["--check"]
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if check and stale:
        print(f"docs/reference differs from the code ({', '.join(stale)}): make reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
