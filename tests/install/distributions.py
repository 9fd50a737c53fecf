"""The two distributions, built as for a release."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.docs.pages import ROOT

SERVICE, CLIENT = "sluice_queue", "sluice_client"
SOURCES = {SERVICE: ROOT, CLIENT: ROOT / "sdk" / "python"}


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """Run a program that must succeed; return what it prints."""
    environment = {**os.environ, **variables}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(target: Path) -> None:
    """Build both: a source archive from the checkout, and from that archive the wheel."""
    for source in SOURCES.values():
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, folder=source)


def wheel(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}-*.whl")
    return found


def archive(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}-*.tar.gz")
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def names(archive: Path) -> set[str]:
    """The names in a source archive, without its top folder."""
    with tarfile.open(archive) as opened:
        return {member.name.partition("/")[2] for member in opened.getmembers()}
