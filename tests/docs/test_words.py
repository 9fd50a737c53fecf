"""Words that a native technical writer would not use: translated idioms and house words, kept out once rewritten."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BANNED = {
    r"\bshall\b": "will, must or should",
    r"\b(?:none|error|errors|cursor|word|words|a file) of ours\b": "name what it is",
    r"\bso far\b": "until now, or that far",
    r"\bbreaks rules\b": "is invalid",
    r"\bgone by\b": "in the past",
    r"\bnought\b": "zero",
    r"\bheed(?:s|ed)?\b|\bstirs?\b": "the field's term",
    r"\blook-ups?\b": "lookup",
    r"\bif need be\b": "if necessary",
    r"\bin no other's way\b": "does not block the others",
    r"\b(?:tasks|bytes|lines|requests|calls|times|statements|commits|inserts|deliveries|ms|us) an? (?:second|minute|hour)\b"
    r"|\d (?:bytes|ms|us|s|kB|MB|MiB) an? (?:task|queue|batch|replica|tenant|row|group)\b": "per",
}


@pytest.mark.ci
def test_texts_are_free_of_translated_idioms() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "app", "docs", "examples", "alembic", "*.md", "openapi"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    # decisions are records of their time
    texts = {name: (ROOT / name).read_text() for name in listed if _is_read(name)}
    assert len(texts) > 200

    found = [
        f"{name}:{number}: {match[0]!r} in {line.strip()!r}: write {instead}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        for banned, instead in BANNED.items()
        if (match := re.search(banned, line, re.IGNORECASE))
    ]

    assert not found, "\n".join(found)


def _is_read(name: str) -> bool:
    path = ROOT / name
    suffixes = {".py", ".md", ".sql", ".json", ".yaml"}
    return path.is_file() and path.suffix in suffixes and not name.startswith(("docs/decisions/", "tests/"))
