#!/usr/bin/env python3
"""16 pretend GPUs on 4 pretend nodes, started as a launcher without MPI starts ranks: NCCL brings
them together by its environment. Wrong worlds are refused, also where the ranks meet over TCP or by
MPI.

    test_fake_nodes.py PROGRAM
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
LIMIT_S = 200
SUITE = """[global]
runs = 1
warmup_time = 0
warmup_iterations = 1
min_time = 0
min_iterations = 3
max_iterations = 4
timeout = 60s
[launch]
[membw]
op = copy
size = 64KiB
[collective]
op = all_reduce,all_gather
size = 4KiB
[trainstep]
model = tiny
plan = dp=8,tp=2
layers = 1
sequence = 16
"""


def place(rank, nodes, gpus):
    """The environment of a rank, as torchrun has it."""
    node = rank // gpus
    return {"RANK": rank, "WORLD_SIZE": nodes * gpus, "LOCAL_RANK": rank % gpus,
            "LOCAL_WORLD_SIZE": gpus, "FAKE_NODE": node, "NCCL_HOSTID": f"node{node + 1:02}",
            "FAKE_GPUS": gpus, "FAKE_MEMORY": 64}


class World:
    """One run: exit codes and stderr of each rank, and rank 0's result. `changed` has what some ranks
    find otherwise in their environment, as rank6={...}."""

    def __init__(self, nodes, gpus, *arguments, meeting=None, **changed):
        gone = ("OMPI_", "PMI", "SLURM_", "NCCL_", "MASTER_", "FAKE_")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
        with tempfile.TemporaryDirectory(prefix="fake-nodes-") as folder:
            suite, path = os.path.join(folder, "nodes.ini"), os.path.join(folder, "result.json")
            with open(suite, "w", encoding="utf-8") as file:
                file.write(SUITE)
            ranks = []
            for rank in range(nodes * gpus):
                env = dict(plain, TMPDIR=folder, **(meeting or {"NCCL_COMM_ID": "10.0.0.1:29500"}))
                env.update({name: str(value) for name, value in place(rank, nodes, gpus).items()})
                env.update(changed.get(f"rank{rank}", {}))
                ranks.append(subprocess.Popen(
                    [PROGRAM, "run", suite, "--device", "fake", "-o", path, *arguments], env=env,
                    text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE))
            end = time.monotonic() + LIMIT_S
            try:
                said = [rank.communicate(timeout=max(1, end - time.monotonic())) for rank in ranks]
            finally:
                for rank in ranks:
                    rank.kill()
            self.out, self.err = said[0]
            self.errors = [text[1] for text in said]
            self.codes = [rank.returncode for rank in ranks]
            self.result = None
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    self.result = json.load(file)


class Nodes(unittest.TestCase):
    def test_four_nodes(self):
        rows = {f"rank{rank}": {"FAKE_NVML": f"fabric={1 + rank // 8}"
                                             f"{',driver=99' if rank // 4 == 2 else ''}"}
                for rank in range(16)}
        world = World(4, 4, **rows)
        self.assertEqual(world.codes, [0] * 16, world.errors)
        result = world.result
        self.assertEqual(result["ranks"], 16)
        self.assertEqual(len({device["uuid_hash"] for device in result["devices"]}), 16)
        self.assertEqual([(case["name"], case["status"]) for case in result["cases"]
                          if case["status"] != "ok"], [])
        self.assertEqual(len(result["cases"]), 5)
        cluster = result["machine"]["cluster"]
        self.assertEqual([cluster["nodes"], cluster["ranks"]], [4, 16])
        self.assertEqual(sorted(kind["count"] for kind in cluster["kinds"]), [1, 3])
        for kind in cluster["kinds"]:
            self.assertEqual(kind["gpus"], [{"model": "NVIDIA H200 (fake)", "count": 4}])
        self.assertEqual([(row["first_rank"], row["differs"]) for row in cluster["odd"]],
                         [(8, "driver 580.99 against 580.65")])
        spread = "trainstep: tensor groups of 2 within a node; data groups of 8 across 4 nodes"
        self.assertEqual(cluster["placement"], [spread])
        for line in ("16 ranks on 4 nodes, 4 on each", "3 nodes: 4 x NVIDIA H200 (fake), ", spread,
                     "NVLink: 2 domains over nodes, of 2 nodes each",
                     "odd: node03: driver 580.99 against 580.65"):
            self.assertIn(line, world.err)
        self.assertNotIn("node03", world.out)
        self.assertEqual(world.errors[1:], [""] * 15)

    def refused(self, world, words):
        """All ranks end alike, and one of them says why."""
        self.assertEqual(world.codes, [64] * 4, world.errors)
        self.assertIn(words, world.err)
        self.assertEqual(len(world.err.splitlines()), 1)
        self.assertEqual(world.errors[1:], [""] * 3)
        self.assertIsNone(world.result)

    def test_one_gpu_for_two(self):
        """NCCL finds it before the ranks can speak: the two ranks say it, the others end too."""
        world = World(2, 2, "--only", "launch", rank3={"LOCAL_RANK": "0"})
        words = "ranks 2 and 3 have one device between them, "
        for rank in range(4):
            twin = rank > 1
            self.assertEqual(world.codes[rank] == 64, twin, world.errors[rank])
            self.assertNotEqual(world.codes[rank], 0)
            self.assertEqual(words in world.errors[rank], twin, world.errors[rank])
            self.assertLessEqual(len(world.errors[rank].splitlines()), 1, world.errors[rank])
        self.assertIsNone(world.result)

    def test_one_gpu_for_two_over_tcp(self):
        """All ranks compare what they are before NCCL sees them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port - 1)}
        words = "ranks 2 and 3 have one device between them, NVIDIA H200 (fake) 0000:1b:00.0 on node02"
        self.refused(World(2, 2, "--only", "launch", meeting=meeting, rank3={"LOCAL_RANK": "0"}), words)
        world = World(2, 2, "--only", "launch", meeting=meeting)
        self.assertEqual(world.codes, [0] * 4, world.errors)
        self.assertEqual(world.result["machine"]["cluster"]["nodes"], 2)

    def test_one_gpu_for_two_by_mpi(self):
        if shutil.which("mpirun") is None or not os.path.exists(
                os.path.join(os.path.dirname(PROGRAM), "clustermark-mpi.so")):
            self.skipTest("no MPI")
        gone = ("OMPI_", "PMI", "SLURM_", "NCCL_", "MASTER_", "FAKE_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", FAKE_GPUS="3",
                   OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1")
        with tempfile.TemporaryDirectory(prefix="fake-nodes-") as folder:
            with open(os.path.join(folder, "nodes.ini"), "w", encoding="utf-8") as file:
                file.write(SUITE)
            run = f"{PROGRAM} run nodes.ini --device fake --only launch; echo $?; exit 0"
            done = subprocess.run(["mpirun", "--oversubscribe", "-n", "2", "sh", "-c", run, ":", "-n", "1",
                                   "sh", "-c", f"OMPI_COMM_WORLD_LOCAL_RANK=1 {run}"],
                                  env=dict(env, TMPDIR=folder), cwd=folder, timeout=LIMIT_S, text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.assertEqual(done.stdout.split(), ["64"] * 3, done.stderr)
        self.assertIn("clustermark: ranks 1 and 2 have one device between them, ", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_one_gpu_for_two_containers(self):
        """NCCL takes them for two nodes."""
        self.refused(World(2, 2, "--only", "launch",
                           rank3={"LOCAL_RANK": "0", "NCCL_HOSTID": "pod-7"}),
                     "ranks 2 and 3 have one device between them, NVIDIA H200 (fake) 0000:1b:00.0 "
                     "on node02; ")

    def test_another_library(self):
        rows = {f"rank{rank}": {"FAKE_NCCL_VERSION": "22703"} for rank in range(2, 4)}
        self.refused(World(2, 2, "--only", "launch", **rows),
                     "the ranks use different communication libraries: ranks 2-3 on node02: NCCL "
                     "2.27.3; the other 2: NCCL 2.")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
