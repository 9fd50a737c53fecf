"""The data directory: permissions, ownership, and the location of the database.

    DATA_DIR/lock          held by the one sluice that owns the directory, with its pid inside
    DATA_DIR/server.lock   held by Postgres: its processes inherit it, so the kernel frees it when the last of them ends
    DATA_DIR/url           the address for replicas that join
    DATA_DIR/postgres.log  Postgres's log
    DATA_DIR/pg            the database cluster, private to the user Postgres runs as

Both locks use flock: they end with their holders, however those end, and a reused pid cannot hold them.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

DIRECTORY_FULL = (errno.ENOSPC, errno.EDQUOT)
LOG_MAX_BYTES = 16 * 1024 * 1024


class EmbeddedError(Exception):
    """Raised if the embedded Postgres cannot run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class User:
    """The user that Postgres runs as."""

    name: str
    uid: int
    gid: int


class DataDirectory:
    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.cluster = self.path / "pg"
        self.url_file = self.path / "url"
        self.log_file = self.path / "postgres.log"
        self._lock: int | None = None

    def claim(self) -> None:
        """Create the directory if necessary, and claim it for this process. Raises EmbeddedError, which names the present owner."""
        try:
            self._create()
            descriptor = self.open("lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise self._explained(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise EmbeddedError(self._taken(holder)) from None
        except OSError as error:
            os.close(descriptor)
            raise self._explained(error) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def release(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self.url_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def publish(self, url: str) -> None:
        """Write the address for other replicas; renamed into place, so that nobody reads half of it."""
        try:
            descriptor = self.open("url.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with os.fdopen(descriptor, "w") as file:
                file.write(url + "\n")
            (self.path / "url.new").rename(self.url_file)
        except OSError as error:
            raise self._explained(error) from error

    def open(self, name: str, flags: int) -> int:
        """Open a private file, owned by the directory's owner even if root creates it."""
        descriptor = os.open(self.path / name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            owner = self.path.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def open_log(self) -> int:
        try:
            self.rotate_log()
            return self.open(self.log_file.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise self._explained(error) from error

    def rotate_log(self) -> None:
        """Limit the log's size: Postgres appends to the open file, so it is copied and truncated, never renamed."""
        if not self.log_file.exists() or self.log_file.stat().st_size < LOG_MAX_BYTES:
            return
        old = self.open(self.log_file.name + ".1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(old, "wb") as kept, self.log_file.open("rb+") as log:
            log.seek(-LOG_MAX_BYTES // 2, os.SEEK_END)
            kept.write(log.read())
            log.truncate(0)

    def log_tail(self, offset: int = 0, lines: int = 6) -> str:
        with contextlib.suppress(OSError), self.log_file.open("rb") as log:
            log.seek(offset)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def server_user(self) -> User:
        """Return the user for Postgres: the present one or, for root, the owner of the existing cluster, otherwise `nobody`."""
        if os.geteuid() != 0:
            user = named_user(os.geteuid())
            if self.cluster.exists() and self.cluster.stat().st_uid != user.uid:
                raise EmbeddedError(
                    f"{self.cluster} belongs to user {_name(self.cluster.stat().st_uid)}, not to {user.name}:"
                    " run sluice as its owner or as root, or set another SLUICE_DATA_DIR."
                )
            return user
        if self.cluster.exists():
            uid = self.cluster.stat().st_uid
            if uid == 0:
                raise EmbeddedError(
                    f"{self.cluster} belongs to root, and Postgres does not run as root: chown -R nobody {self.cluster}"
                )
            return named_user(uid)
        owner = self.path.stat().st_uid
        try:
            return named_user(owner) if owner != 0 else User(*_fields(pwd.getpwnam("nobody")))
        except KeyError:
            raise EmbeddedError(
                "Postgres does not run as root, and this system has no user nobody to run it as:"
                " run sluice as another user, or set SLUICE_DATABASE_URL."
            ) from None

    def check_cluster(self, major: int) -> None:
        """Refuse an unsuitable cluster with a better message than Postgres's. Raises EmbeddedError."""
        mode = stat.S_IMODE(self.cluster.stat().st_mode)
        if mode & 0o077:
            raise EmbeddedError(
                f"{self.cluster} has mode {mode:04o}, so others can reach the database: chmod 700 {self.cluster}"
            )
        try:
            found = (self.cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(
                f"{self.cluster} is not a database cluster: move it away, or set another SLUICE_DATA_DIR."
            ) from None
        if found != str(major):
            raise EmbeddedError(
                f"{self.cluster} was created by PostgreSQL {found}, but this sluice includes PostgreSQL {major}:"
                " dump it with the sluice that created it and restore it into a new SLUICE_DATA_DIR,"
                f" or run PostgreSQL {found} yourself and set SLUICE_DATABASE_URL."
            )

    def _create(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise EmbeddedError(f"{self.path} is not a directory: set another SLUICE_DATA_DIR.")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o022:
            raise EmbeddedError(
                f"{self.path} has mode {mode:04o}, so others could replace the database: chmod go-w {self.path},"
                f" or use a directory inside it (SLUICE_DATA_DIR={self.path / 'sluice'})."
            )

    def _taken(self, holder: str) -> str:
        try:
            url = self.url_file.read_text().strip()
        except OSError:
            url = ""
        join = (
            f"SLUICE_DATABASE_URL='{url}' SLUICE_PORT=8081 sluice up"
            if url
            else f"SLUICE_DATABASE_URL=\"$(cat '{self.url_file}')\" SLUICE_PORT=8081 sluice up (once it has started)"
        )
        return (
            f"{self.path} is in use by sluice with pid {holder or 'unknown'}, and a directory holds only one Postgres."
            f" To run another replica on the same database: {join}."
            " To run a separate one, set another SLUICE_DATA_DIR."
        )

    def full(self) -> EmbeddedError:
        return EmbeddedError(f"No space left for {self.path}: free some, or set another SLUICE_DATA_DIR.")

    def _explained(self, error: OSError) -> EmbeddedError:
        if error.errno in DIRECTORY_FULL:
            return EmbeddedError(f"No space left for {self.path}: free some, or set another SLUICE_DATA_DIR.")
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            return EmbeddedError(f"{self.path} is not a directory: set another SLUICE_DATA_DIR.")
        return EmbeddedError(
            f"{self.path} cannot be used by user {_name(os.geteuid())} ({error.strerror}: {error.filename}):"
            " make it writable, or set another SLUICE_DATA_DIR."
        )


def _fields(entry: pwd.struct_passwd) -> tuple[str, int, int]:
    return entry.pw_name, entry.pw_uid, entry.pw_gid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def named_user(uid: int) -> User:
    try:
        return User(*_fields(pwd.getpwuid(uid)))
    except KeyError:
        raise EmbeddedError(
            f"User id {uid} has no name on this system (/etc/passwd), but Postgres needs one:"
            " add it, run as another user, or set SLUICE_DATABASE_URL."
        ) from None
