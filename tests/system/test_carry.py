#!/usr/bin/env python3
"""Processes of a launcher that brings no MPI, on the CPU. Usage: test_carry.py PROGRAM CONFIGS [ROUNDS]

The variables are set by hand, as torchrun, an Indexed Job of Kubernetes or plain srun set them: the
processes become one world. One that never comes, one that dies, or rank 0's death ends all of them,
in time and in one line, and nothing is left behind.
"""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

from ports import free_port

PROGRAM = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[3]) if sys.argv[3:] and sys.argv[3].isdigit() else 1
SUITE = """[global]
runs = 1
warmup_time = 1ms
warmup_iterations = 1
min_time = 1ms
min_iterations = 3
max_time = 50ms
timeout = 30s
[first]
workload = collective
size = 1KiB
"""
# Long enough to be in the middle of it.
LONG = SUITE + """[second]
workload = membw
size = 64MiB
min_time = 100s
max_time = 100s
max_iterations = 1000000
timeout = 200s
"""
# What a loaded machine may take for an end: MPI's own deaths, and this program's deadlines.
END_S = 60
NOISE = re.compile(r"plm:rsh: Warning: setpgid")


def torchrun(rank, size, port, per_node=1):
    return {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank % per_node,
            "LOCAL_WORLD_SIZE": per_node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def indexed_job(rank, size, port):
    return {"JOB_COMPLETION_INDEX": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost",
            "MASTER_PORT": port}


def slurm(rank, size, port):
    """As srun --mpi=none; the node's name is not known to any resolver, so the address of the
    machine where srun runs is taken."""
    return {"SLURM_JOB_ID": port, "SLURM_STEP_ID": 3, "SLURM_PROCID": rank, "SLURM_NTASKS": size,
            "SLURM_LOCALID": 0, "SLURM_NODEID": rank, "SLURM_STEP_TASKS_PER_NODE": f"1(x{size})",
            "SLURM_STEP_NODELIST": f"nowhere[1-{size}].invalid",
            "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}


class Carry(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cm-carry-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.marker = f"CM_TEST_CARRY={uuid.uuid4()}"
        self.processes = {}
        self.addCleanup(self.kill_all)
        self.port = free_port()

    def marked(self):
        """What was started here, whoever its parent is by now."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if self.marker.encode() in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
        return found

    def kill_all(self):
        for pid in self.marked():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes.values():
            process.wait()

    def start(self, variables, words=(), suite=SUITE, ranks=None, size=4):
        with open(os.path.join(self.folder, "suite.ini"), "w", encoding="utf-8") as file:
            file.write(suite)
        base = {key: value for key, value in os.environ.items() if not re.match(
            r"OMPI_|PMI|SLURM_|RANK$|WORLD_SIZE$|LOCAL_|MASTER_|JOB_COMPLETION|CLUSTERMARK_", key)}
        name, value = self.marker.split("=")
        base.update({name: value, "OMPI_MCA_mpi_yield_when_idle": "1"})
        for rank in ranks if ranks is not None else range(size):
            # MPI takes what has a /tmp of its own for a node of its own.
            node = os.path.join(self.folder, f"node{rank}")
            os.makedirs(node, exist_ok=True)
            env = {**base, "TMPDIR": node, **{k: str(v) for k, v in variables(rank).items()}}
            with open(os.path.join(self.folder, f"out{rank}"), "w", encoding="utf-8") as out, \
                    open(os.path.join(self.folder, f"err{rank}"), "w", encoding="utf-8") as err:
                self.processes[rank] = subprocess.Popen(
                    [PROGRAM, "run", "suite.ini", "--device", "cpu", "-q", "-o", "r.json", *words],
                    cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def finish(self, seconds=100):
        """Exit codes, and what was said on stderr, by rank; nothing is left behind."""
        end = time.monotonic() + seconds
        codes = {rank: process.wait(max(0.1, end - time.monotonic()))
                 for rank, process in self.processes.items()}
        while self.marked() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.marked(), [], "left behind")
        return codes, {rank: [line for line in self.text(f"err{rank}").splitlines()
                              if not NOISE.search(line)] for rank in codes}

    def text(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8") as file:
            return file.read()

    def check_world(self, size, launcher):
        codes, errors = self.finish()
        self.assertEqual(set(codes.values()), {0}, errors)
        result = json.loads(self.text("r.json"))
        self.assertEqual((result["ranks"], len(result["devices"])), (size, size))
        self.assertEqual(result["suite"]["launcher"], launcher)
        self.assertEqual([case["status"] for case in result["cases"]], ["ok"])
        # Rank 0 alone speaks.
        self.assertEqual(errors.pop(0), ["r.json"])
        self.assertEqual([line for lines in errors.values() for line in lines], [])
        self.assertIn("verdict: fine", self.text("out0"))
        self.assertEqual([self.text(f"out{rank}") for rank in errors], [""] * (size - 1))
        return result

    def test_pods_of_an_indexed_job(self):
        self.start(lambda rank: indexed_job(rank, 3, self.port), size=3)
        self.check_world(3, "kubernetes")

    def test_two_processes_on_one_node(self):
        self.start(lambda rank: torchrun(rank, 2, self.port, per_node=2), size=2)
        self.check_world(2, "torchrun")

    def test_plain_srun(self):
        self.start(lambda rank: slurm(rank, 2, self.port), size=2)
        self.check_world(2, "srun")

    def test_some_never_come(self):
        begin = time.monotonic()
        self.start(lambda rank: torchrun(rank, 6, self.port), ["--wait", "2s"], ranks=[0, 2])
        codes, errors = self.finish(30)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(set(codes.values()), {64})
        self.assertEqual(errors, {2: [], 0: [
            "clustermark: 6 ranks were expected within 2.00 s, and 2 came; missing: 1, 3-5"]})
        self.assertFalse(os.path.exists(os.path.join(self.folder, "r.json")))

    def test_rank_0_never_comes(self):
        self.start(lambda rank: torchrun(rank, 3, self.port, per_node=3), ["--wait", "1s"],
                   ranks=[1, 2])
        codes, errors = self.finish(30)
        self.assertEqual(set(codes.values()), {5})
        self.assertEqual(errors, {2: [], 1: [
            f"clustermark: rank 1: found no rank 0 at port {self.port + 1} of 127.0.0.1 within "
            "1.00 s"]})

    def test_worlds_that_contradict_each_other(self):
        self.start(lambda rank: torchrun(rank, 3 if rank == 0 else 4, self.port), ranks=[0, 1])
        codes, errors = self.finish(30)
        self.assertEqual(set(codes.values()), {64})
        self.assertRegex("\n".join(errors[0]), "rank 1 on .* was told of 4 ranks, rank 0 of 3")
        self.assertEqual((len(errors[0]), errors[1]), (1, []))
        self.start(lambda rank: torchrun(min(rank, 1), 3, self.port + 2), size=3)
        codes, errors = self.finish(30)
        self.assertEqual(set(codes.values()), {64})
        self.assertRegex("\n".join(errors[0]), "two processes, .*, say they are rank 1 of 3")

    def test_strangers_and_no_address(self):
        self.start(lambda rank: torchrun(rank, 2, self.port), ["--wait", "3s"], ranks=[0])
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"x" * 100000, b"clustermark nothing\n", b""):
            end = time.monotonic() + 3
            while time.monotonic() < end:
                try:
                    with socket.create_connection(("127.0.0.1", self.port + 1), 1) as stranger:
                        stranger.sendall(garbage)
                        break
                except OSError:
                    time.sleep(0.05)
        codes, errors = self.finish(30)
        self.assertEqual(codes, {0: 64})
        self.assertRegex("\n".join(errors[0]), "2 ranks were expected .* missing: 1$")
        self.start(lambda rank: {"RANK": rank, "WORLD_SIZE": 2}, size=2)
        codes, errors = self.finish(30)
        self.assertEqual(set(codes.values()), {64})
        self.assertRegex("\n".join(errors[0]), "set MASTER_ADDR")
        self.assertEqual(errors[1], [])

    def start_long(self):
        """A run on three nodes in the middle of its second case."""
        self.start(lambda rank: torchrun(rank, 3, self.port), suite=LONG, size=3)
        end = time.monotonic() + 100
        while time.monotonic() < end:
            try:
                if json.loads(self.text("r.json"))["cases"]:
                    break
            except (OSError, ValueError, KeyError):
                pass
            self.assertEqual([p.poll() for p in self.processes.values()], [None] * 3,
                             self.text("err0"))
            time.sleep(0.05)
        time.sleep(0.2)

    def test_a_carrier_is_killed(self):
        self.start_long()
        begin = time.monotonic()
        self.processes[2].kill()
        codes, errors = self.finish(END_S)
        self.assertLess(time.monotonic() - begin, END_S)
        self.assertEqual((codes[0], codes[1], codes[2]), (5, 5, -signal.SIGKILL))
        ours = [line for line in errors[0] + errors[1] if line.startswith("clustermark: rank ")]
        self.assertRegex("\n".join(ours), r"\Aclustermark: rank 2 on \S+ is gone, and the job with "
                         r"it\Z")
        cases = {case["name"]: case for case in json.loads(self.text("r.json"))["cases"]}
        self.assertEqual(cases["first"]["status"], "ok")

    def test_any_process_is_killed_at_any_moment(self):
        for i in range(ROUNDS):
            victim, after_s = random.randrange(3), random.uniform(0, 3)
            with self.subTest(round=i, victim=victim, after_s=after_s):
                self.port = free_port()
                self.start(lambda rank: torchrun(rank, 3, self.port), ["--wait", "3s"],
                           suite=LONG, size=3)
                time.sleep(after_s)
                self.processes[victim].kill()
                codes, errors = self.finish(END_S)
                self.assertEqual(codes.pop(victim), -signal.SIGKILL)
                # 64: it was missed before all had come.
                self.assertTrue(set(codes.values()) <= {5, 64}, f"{codes} {errors}")
                ours = [line for rank in codes for line in errors[rank]
                        if line.startswith("clustermark: ")]
                # The job that is ended with its carriers says that it was.
                told = r"missing: \d|rank \d|no rank 0|interrupted: all ranks got a signal"
                self.assertTrue(ours and all(re.search(told, line) for line in ours), errors)

    def test_rank_0_is_killed(self):
        self.start_long()
        begin = time.monotonic()
        self.processes[0].kill()
        codes, errors = self.finish(END_S)
        self.assertLess(time.monotonic() - begin, END_S)
        self.assertEqual((codes[0], codes[1], codes[2]), (-signal.SIGKILL, 5, 5))
        ours = [line for lines in (errors[1], errors[2]) for line in lines
                if line.startswith("clustermark: ")]
        self.assertEqual(ours, ["clustermark: rank 1: rank 0, which carried the job, is gone"])


if __name__ == "__main__":
    if shutil.which("mpirun") is None:
        print("skipped: no mpirun here")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + [word for word in sys.argv[3:] if not word.isdigit()])
