#!/usr/bin/env python3
"""The supervisor of the built program with real ranks. Usage: test_supervisor.py PROGRAM CONFIGS

A rank that is stopped or killed is named in the result, and what the launcher prints about it stays
away from the user. A budget bounds the whole run, and what got no time says so.
"""
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
# The first case takes long enough to be found in its measurement.
SUITE = """[global]
runs = 1
warmup_time = 10ms
min_time = 3s
max_time = 5s
max_iterations = 1000000
timeout = 4s
[first]
workload = gemm
m = 128
n = 128
k = 128
[second]
workload = collective
size = 64KiB
min_time = 10ms
max_time = 50ms
"""


def ranks_of(supervisor):
    """Process ids of the ranks below a supervisor, by rank."""
    parents, ranks = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{name}/environ", "rb") as file:
                found = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", file.read())
        except OSError:
            continue
        if found:
            ranks[int(name)] = int(found.group(1))

    def below(pid):
        while pid > 1:
            if pid == supervisor:
                return True
            pid = parents.get(pid, 0)
        return False
    return {rank: pid for pid, rank in ranks.items() if below(pid)}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Screen:
    """What a program writes to its terminal, read as it comes."""

    def __init__(self, terminal):
        self.terminal, self.bytes, self.changed = terminal, b"", threading.Condition()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        while True:
            try:
                part = os.read(self.terminal, 4096)
            except OSError:  # nobody has the other end any more
                part = b""
            with self.changed:
                self.bytes += part
                self.changed.notify_all()
            if not part:
                return

    def shows(self, pattern, seconds):
        with self.changed:
            return self.changed.wait_for(lambda: re.search(pattern, self.bytes), seconds)

    def text(self):
        with self.changed:
            return self.bytes.decode(errors="replace")

    def close(self):
        self.reader.join(30)
        os.close(self.terminal)


class Supervisor(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cm-supervisor-")
        self.addCleanup(shutil.rmtree, self.folder)
        with open(os.path.join(self.folder, "suite.ini"), "w") as file:
            file.write(SUITE)

    def start(self, *words, stderr=subprocess.PIPE):
        env = {key: value for key, value in os.environ.items()
               if not re.match(r"OMPI_|PMI|SLURM_|RANK$|WORLD_SIZE$|LOCAL_RANK$", key)}
        return subprocess.Popen([PROGRAM, "run", "suite.ini", "-o", "r.json", *words],
                                cwd=self.folder, env=env, stdout=subprocess.PIPE,
                                stderr=stderr, text=True)

    def cases(self):
        with open(os.path.join(self.folder, "r.json")) as file:
            return {item["name"]: item for item in json.load(file)["cases"]}

    def start_measuring(self, *words):
        """A run whose ranks are in the measurement of their first case, as its progress line tells
        on a terminal; what comes there later is collected."""
        terminal, end = pty.openpty()
        run = self.start("--ranks", "2", *words, stderr=end)
        os.close(end)
        screen = Screen(terminal)
        self.addCleanup(screen.close)
        self.addCleanup(run.wait)
        self.addCleanup(run.kill)
        self.assertTrue(screen.shows(rb"first measure", 90), screen.text())
        self.assertEqual(len(ranks_of(run.pid)), 2)
        return run, screen

    def disturb(self, signal_number):
        """Sends a signal to rank 1 while it measures; gives back stderr and the cases."""
        run, screen = self.start_measuring()
        os.kill(ranks_of(run.pid)[1], signal_number)
        run.communicate(timeout=100)
        stderr = screen.text()
        self.assertEqual(run.returncode, 5, stderr)
        return stderr, self.cases()

    def expect_one_failure(self, stderr, cases, pattern):
        self.assertEqual(cases["first"]["status"], "failed")
        self.assertRegex(cases["first"]["reason"], pattern)
        self.assertEqual(cases["second"]["status"], "ok")
        self.assertNotRegex(stderr, r"mpirun noticed|-----|Primary job|aborted")

    def test_killed(self):
        stderr, cases = self.disturb(signal.SIGKILL)
        self.expect_one_failure(stderr, cases, r"^rank 1 died .*killed by signal 9")

    def test_stopped(self):
        stderr, cases = self.disturb(signal.SIGSTOP)
        self.expect_one_failure(stderr, cases, r"^rank 1 gave no sign of life .*stopped")

    def test_supervisor_killed(self):
        """In the middle of a minute's measurement: nobody goes on with it."""
        run, _ = self.start_measuring("--set", "first.min_time=1m", "--set", "first.max_time=1m")
        ranks = ranks_of(run.pid).values()
        run.kill()
        run.communicate()
        deadline = time.monotonic() + 20
        while any(alive(pid) for pid in ranks) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertFalse([pid for pid in ranks if alive(pid)])

    def test_budget(self):
        begin = time.monotonic()
        run = self.start("--ranks", "2", "--runs", "50", "--budget", "12s")
        _, stderr = run.communicate(timeout=100)
        took = time.monotonic() - begin
        self.assertEqual(run.returncode, 0, stderr)
        # The program's own start and report are outside what the supervisor can bound.
        self.assertLess(took, 13)
        for name, item in self.cases().items():
            self.assertIn(item["status"], ("ok", "skipped"), name)
            self.assertLess(len(item["runs"]), 50)
            if item["status"] == "skipped":
                self.assertIn("budget of 12", item["reason"])


if __name__ == "__main__":
    if shutil.which("mpirun") is None:
        print("no mpirun here: skipped")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
