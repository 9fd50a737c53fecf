"""Postgres processes: starting one, waiting for its end, and finding what an earlier run left."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from app.embedded import launcher
from app.embedded.directory import User


def spawn(
    program: Sequence[str | Path],
    *,
    user: User,
    directory: Path,
    lock: int,
    death_signal: signal.Signals,
    output: int,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program on the cluster in `directory`, as `user`, in its own session, so that Ctrl-C reaches only sluice.

    It inherits the lock and the open directory, which needs no permissions on the folders above.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the embedded Postgres would die with this thread: start it from the main one")
    cluster = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    words = (user.uid, user.gid, os.getpid(), int(death_signal), *program)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", launcher.__file__, *map(str, words)],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGDATA": f"/proc/self/fd/{cluster}"},
            stdin=stdin,
            stdout=output,
            stderr=output,
            pass_fds=[lock, cluster],
            start_new_session=True,
        )
    finally:
        os.close(cluster)


async def exit_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child without a thread and without polling."""
    if process.poll() is None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(process.pid)
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return process.wait()


def earlier_processes(cluster_name: str) -> list[tuple[int, bool]]:
    """Return a server's processes, recognised by the name in their titles (readable by any user); true for a postmaster."""
    name = cluster_name.encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                words = (entry / "cmdline").read_bytes()
                if b"cluster_name=" + name in words:
                    found.append((int(entry.name), True))
                elif words.startswith(b"postgres: " + name + b":"):
                    found.append((int(entry.name), False))
    return found


def help_to_end(processes: list[tuple[int, bool]]) -> None:
    """Stop a postmaster that is not stopping yet, and kill backends without a postmaster, which have nothing left to save."""
    postmasters = [pid for pid, is_postmaster in processes if is_postmaster]
    for pid in postmasters or [pid for pid, _ in processes]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT if postmasters else signal.SIGKILL)


def runs_postgres(pid: int, cluster: Path) -> bool:
    """Return whether a live Postgres with this pid may be using the cluster. Zombies and other users' processes do not count."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    if name not in ("postgres", "postmaster") or rest.split()[0] in ("Z", "X"):
        return False
    try:
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except OSError:
        return True
