"""What the tests themselves rest on."""

import signal
import subprocess
import sys

CHILD = "import signal; print([signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGHUP)])"
PARENT = f"""
import os, signal, subprocess, sys
from tests.support import give_signals_back
give_signals_back()
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGHUP)
subprocess.run([sys.executable, "-c", {CHILD!r}])
"""


def test_in_the_background_the_tests_give_what_they_start_its_signals_back() -> None:
    def in_background() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    ended = subprocess.run(
        [sys.executable, "-c", PARENT], preexec_fn=in_background, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "[False, False]"), ended.stderr
