"""`make setup` where packages are fetched through a proxy: what it passes on, and what it says when it cannot."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

# Stands for python, pip and uv: notes what it is given, and fails as uv when told so.
STUB = """#!/bin/sh
echo "$(basename "$0") $* PIP_CERT=$PIP_CERT SSL_CERT_FILE=$SSL_CERT_FILE UV_SYSTEM_CERTS=$UV_SYSTEM_CERTS" >> "$SEEN"
case "$*" in "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/uv" ;; *"$REFUSE"*) exit 1 ;; esac
"""


def setup(
    folder: Path, *, refuse: str = "nothing", **variables: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """`make setup` in a folder with stubs for programs; how it ended, and the lines of those that install."""
    for name in ("Makefile", "pyproject.toml", "requirements", "sdk"):
        (folder / name).symlink_to(ROOT / name)
    stub = folder / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    ended = subprocess.run(
        ["make", "setup", f"PYTHON={stub}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "SEEN": str(folder / "seen"), "REFUSE": refuse, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended, [line for line in (folder / "seen").read_text().splitlines() if "requirements/" in line]


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.mark.parametrize("given", ["PIP_CERT", "SSL_CERT_FILE"])
def test_one_certificate_variable_is_enough_for_pip_and_uv(given: str, tmp_path: Path) -> None:
    ended, (pip, uv) = setup(tmp_path, **{given: "/ca.pem"}, UV_SYSTEM_CERTS="1")
    assert ended.returncode == 0, ended.stderr
    assert " -m pip install " in pip and uv.startswith("uv pip sync ")
    for line in (pip, uv):
        assert line.endswith(" PIP_CERT=/ca.pem SSL_CERT_FILE=/ca.pem UV_SYSTEM_CERTS=1")


def test_certificates_that_differ_are_left_as_they_are(tmp_path: Path) -> None:
    _, (pip, uv) = setup(tmp_path, PIP_CERT="/pip.pem", SSL_CERT_FILE="/uv.pem")
    for line in (pip, uv):
        assert line.endswith(" PIP_CERT=/pip.pem SSL_CERT_FILE=/uv.pem UV_SYSTEM_CERTS=")


@pytest.mark.parametrize("refused", ["uv.txt", "dev.txt"])
def test_what_to_set_is_said_when_packages_cannot_be_fetched(refused: str, tmp_path: Path) -> None:
    ended, lines = setup(tmp_path, refuse=f"requirements/{refused}")
    assert ended.returncode != 0 and len(lines) == (1 if refused == "uv.txt" else 2)
    for variable in (
        "SSL_CERT_FILE",
        "PIP_CERT",
        "HTTPS_PROXY",
        "PIP_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "UV_SYSTEM_CERTS",
    ):
        assert variable in ended.stderr
    assert not (tmp_path / ".venv" / ".ready").exists()
