"""The folder of the server's socket, as clients see it.

The path of a Unix socket has at most 107 bytes. This does not affect Postgres, which uses a relative path. For clients, a cluster
with a longer path gets a link in a private folder in the temp directory. The folder's name is derived from the cluster, so the
address stays the same after restarts, and a folder left by a crash is used by the next start.
"""

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from app.embedded.directory import EmbeddedError

SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_MAX_BYTES = 107


class SocketPath:
    def __init__(self, cluster: Path) -> None:
        self._cluster = cluster
        self._folder: Path | None = None
        self._lock: int | None = None

    def open(self) -> Path:
        if _fits(self._cluster) and "," not in str(self._cluster):  # a comma separates hosts in an address
            return self._cluster
        status = self._cluster.stat()
        name = f"sluice-{os.geteuid()}-{status.st_dev:x}-{status.st_ino:x}"
        for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
            with contextlib.suppress(OSError):
                if _fits(parent / name / "pg") and self._link(parent / name):
                    return parent / name / "pg"
        raise EmbeddedError(
            f"The path {self._cluster} is too long for a socket, and no temp directory can hold a short link to it:"
            " set a shorter SLUICE_DATA_DIR or TMPDIR."
        )

    def close(self) -> None:
        if self._folder is not None and self._lock is not None:
            with contextlib.suppress(OSError):
                (self._folder / "pg").unlink()
                self._folder.rmdir()
            os.close(self._lock)
            self._folder = self._lock = None

    def _link(self, folder: Path) -> bool:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o170777 != 0o040700:
            return False  # created by someone else, who could redirect clients
        (folder / "pg").unlink(missing_ok=True)
        (folder / "pg").symlink_to(self._cluster)
        self._folder = folder
        # Cleaners of temp directories skip a locked folder.
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return True


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_MAX_BYTES
