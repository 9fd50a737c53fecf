"""Runs a Postgres program that cannot outlive the process that started it.

It is a separate script, `launcher.py UID GID PARENT SIGNAL PROGRAM [ARGUMENT ...]`, so that no Python code of the parent runs
between the fork and the exec of a process with threads. The order matters:

1. As root, switch to the given user: Postgres refuses to run as root.
2. Ask the kernel for SIGNAL when the parent dies. setuid clears this, so it comes second. (It is tied to the *thread* that
started this process; the caller uses its main thread.)
3. If the parent died before step 2, nobody will send that signal: check, and exit.
4. exec, so that the pid known to the caller is the program itself.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    uid, gid, parent, signal_number = (int(word) for word in arguments[:4])
    program = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o077)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the process that asked for Postgres is gone")
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
