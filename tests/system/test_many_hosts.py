#!/usr/bin/env python3
"""Ranks on four pretend hosts, one of which is killed, stopped, cut off or hangs at a random moment.

Usage: test_many_hosts.py PROGRAM CONFIGS [ROUNDS [SEED]]

ROUNDS of each kind; without it 1, and none that hangs. In every round all processes of the program end within the
deadline, the one that was struck is named, by its rank and host, once, and what was measured before
is in the result. With more than one round there are also rounds that strike while the ranks start,
when a launcher or a meeting's deadline ends them, and runs that nothing disturbs.
"""
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import netns

PROGRAM = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 1
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 30)
RANKS = 4
SILENCE_S = 2.0
# From the blow to the last process: a silence and two beats until it is noticed, a moment for words,
# two silences until a process that is stopped is killed by its timer.
DEADLINE_S = 2 * SILENCE_S + 2
START_DEADLINE_S = 70
TIMEOUT_S = 5  # of a phase; a rank that lives and hangs is noticed by the others' waiting
HANG_DEADLINE_S = TIMEOUT_S + DEADLINE_S
# Each case takes a second or two, most of it start and end.
SUITE = f"""[global]
runs = 3
warmup_time = 10ms
min_time = 200ms
max_time = 200ms
max_iterations = 100000
silence = {SILENCE_S}s
timeout = {TIMEOUT_S}s
[gemm]
workload = gemm
m = 64
n = 64
k = 64
[collective]
workload = collective
op = all_reduce,all_gather
size = 1KiB,64KiB
[sendrecv]
workload = sendrecv
size = 64KiB
[membw]
workload = membw
op = copy
size = 4MiB
"""


def is_ours(pid):
    """Whether a process is one of the program's, and runs: (rank, parent), or None."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().split(b"\0")[0]
        with open(f"/proc/{pid}/environ", "rb") as file:
            rank = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", file.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            words = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    if command.decode() != PROGRAM or rank is None or words[0] in "ZX":
        return None
    return int(rank.group(1)), int(words[1])


class Round:
    """One run on hosts of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.hosts = netns.Hosts(RANKS)
        self.held = None
        self.result = os.path.join(folder, "r.json")
        if os.path.exists(self.result):
            os.unlink(self.result)
        self.outputs = [open(os.path.join(folder, name), "w+", encoding="utf-8")
                        for name in ("out", "err")]
        env = {key: value for key, value in os.environ.items()
               if not re.match(r"OMPI_|PMI|SLURM_|RANK$|WORLD_SIZE$|LOCAL_RANK$", key)}
        words = [PROGRAM, "run", "suite.ini", "-o", "r.json", "--show-hosts"]
        self.begin = time.monotonic()
        self.launcher = subprocess.Popen(self.hosts.mpirun(words), cwd=folder, env=env,
                                         stdin=subprocess.DEVNULL, stdout=self.outputs[0],
                                         stderr=self.outputs[1])

    def close(self):
        self.hosts.close()
        self.launcher.kill()
        self.launcher.wait()
        for file in self.outputs:
            file.close()

    def processes(self):
        found = {pid: is_ours(pid) for pid in self.hosts.pids()}
        return {pid: of for pid, of in found.items() if of is not None}

    def process_of(self, rank):
        """The rank's own process; rank 0 has a watcher as its child."""
        found = self.processes()
        own = [pid for pid, (of, parent) in found.items() if of == rank and parent not in found]
        return own[0] if own else None

    def cases(self):
        try:
            with open(self.result, encoding="utf-8") as file:
                return {item["name"]: item for item in json.load(file)["cases"]}
        except FileNotFoundError:
            return {}

    def wait_for(self, true, seconds):
        until = time.monotonic() + seconds
        while not true():
            self.let_go()
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def hold_main_thread(self, pid):
        """The rank hangs, but its other threads go on: only a tracer can stop a single one."""
        libc = ctypes.CDLL(None, use_errno=True)
        for request in (0x4206, 0x4207):  # PTRACE_SEIZE, PTRACE_INTERRUPT
            if libc.ptrace(request, pid, None, None) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")
        self.held = pid

    def let_go(self):
        """Its tracer hears of its end first."""
        if self.held is not None:
            try:
                os.waitpid(self.held, os.WNOHANG | 0x40000000)  # __WALL
            except ChildProcessError:
                self.held = None

    def strike(self, kind, rank):
        if kind == "cut":
            self.hosts.cut(rank)
            return
        pid = self.process_of(rank)
        if pid is not None and kind == "hang":
            self.hold_main_thread(pid)
        elif pid is not None:
            os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)

    def text(self, which):
        self.outputs[which].seek(0)
        return self.outputs[which].read()


class ManyHosts(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cm-many-hosts-")
        self.addCleanup(shutil.rmtree, self.folder)
        with open(os.path.join(self.folder, "suite.ini"), "w", encoding="utf-8") as file:
            file.write(SUITE)

    def check_named(self, run, kind, rank, before):
        """One line on stderr that names who was struck, and the result says it too."""
        stderr = run.text(1)
        # What the host that was cut off says reaches nobody but its own disk.
        from_afar = kind == "cut" and rank == 0
        way = {"kill": "died", "hang": "made no progress"}.get(kind, "gave no sign of life")
        pattern = rf"rank {rank} on h{rank} \(.*\) {way}"
        named = re.findall(r"^clustermark: .*", stderr, re.MULTILINE)
        self.assertEqual(len(named), 1, stderr)
        self.assertRegex(named[0], rf"h{rank}, the host of rank 0, {way}" if from_afar else pattern)
        with open(run.result, encoding="utf-8") as file:
            result = json.load(file)
        self.assertEqual(result["ending"], "failed")
        after = run.cases()
        failed = [item for item in after.values() if item["status"] == "failed"]
        self.assertEqual(len(failed), 1, [item["name"] for item in failed])
        self.assertRegex(failed[0]["reason"],
                         rf"h{rank}, the host of rank 0, was cut off" if from_afar else pattern)
        self.assertRegex(failed[0]["reason"], r"last communication \w+ of \d+")
        for name, item in before.items():
            self.assertEqual(after[name]["runs"][:len(item["runs"])], item["runs"], name)
        self.assertIn(run.launcher.returncode, (5, 137), stderr)

    def one_round(self, kind, rank, delay):
        run = Round(self.folder)
        try:
            self.assertTrue(run.wait_for(lambda: run.cases() or run.launcher.poll() is not None, 60))
            time.sleep(delay)
            before = run.cases()
            self.assertIsNone(run.launcher.poll(), run.text(1))
            run.strike(kind, rank)
            begin = time.monotonic()
            gone = run.wait_for(lambda: not run.processes(),
                                HANG_DEADLINE_S if kind == "hang" else DEADLINE_S)
            took = time.monotonic() - begin
            self.assertTrue(gone, f"still there: {run.processes()}\n{run.text(1)}")
            self.assertTrue(run.wait_for(lambda: run.launcher.poll() is not None, 30))
            self.check_named(run, kind, rank, before)
            # The launcher's own helper on a host that was cut off takes longest to see it.
            self.assertTrue(run.wait_for(lambda: not run.hosts.pids(), 60), run.hosts.pids())
            return f"all gone after {took:.2f} s, {len(before)} cases kept"
        finally:
            run.close()

    def test_struck(self):
        dice = random.Random(SEED)
        kinds = ("kill", "stop", "cut", "hang") if ROUNDS > 1 else ("kill", "stop", "cut")
        for count in range(ROUNDS):
            for kind in kinds:
                rank, delay = dice.randrange(RANKS), dice.uniform(0, 4 if ROUNDS > 1 else 0.5)
                with self.subTest(kind=kind, rank=rank, delay=delay, round=count):
                    said = self.one_round(kind, rank, delay)
                    print(f"{count}: {kind} rank {rank} after {delay:.2f} s: {said}", flush=True)

    @unittest.skipIf(ROUNDS < 2, "in long runs of this test alone")
    def test_start(self):
        """Before the ranks have met nobody can watch them."""
        dice = random.Random(SEED + 1)
        for count in range(ROUNDS // 2):
            kind, rank = dice.choice(("kill", "stop", "cut")), dice.randrange(RANKS)
            delay = dice.uniform(0, 1)
            run = Round(self.folder)
            try:
                with self.subTest(kind=kind, rank=rank, delay=delay, round=count):
                    self.assertTrue(run.wait_for(lambda: run.process_of(rank), 30))
                    time.sleep(delay)
                    run.strike(kind, rank)
                    begin = time.monotonic()
                    self.assertTrue(run.wait_for(lambda: run.launcher.poll() is not None and
                                                 not run.processes(), START_DEADLINE_S),
                                    f"{run.processes()} {run.text(1)}")
                    run.cases()  # it reads, if it is there
                    print(f"{count}: {kind} rank {rank} {delay:.2f} s after its start: all gone "
                          f"after {time.monotonic() - begin:.2f} s", flush=True)
            finally:
                run.close()

    @unittest.skipIf(ROUNDS < 2, "in long runs of this test alone")
    def test_undisturbed(self):
        for _ in range(ROUNDS // 4):
            run = Round(self.folder)
            try:
                self.assertEqual(run.launcher.wait(120), 0, run.text(1))
                self.assertEqual({item["status"] for item in run.cases().values()}, {"ok"})
                self.assertTrue(run.wait_for(lambda: not run.hosts.pids(), 2))
            finally:
                run.close()


if __name__ == "__main__":
    reason = netns.why_not() if shutil.which("mpirun") else "no mpirun here"
    if reason is not None:
        print(f"{reason}: skipped")
        sys.exit(77)
    print(f"seed {SEED}")
    unittest.main(argv=sys.argv[:1], verbosity=2)
