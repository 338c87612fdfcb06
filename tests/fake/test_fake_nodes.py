#!/usr/bin/env python3
"""16 pretend GPUs on 4 pretend nodes, started as a launcher without MPI starts ranks: NCCL brings
them together by its environment.

    test_fake_nodes.py PROGRAM
"""
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
NODES, GPUS = 4, 4
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


def place(rank):
    """The environment of a rank, as torchrun has it."""
    node = rank // GPUS
    return {"RANK": rank, "WORLD_SIZE": NODES * GPUS, "LOCAL_RANK": rank % GPUS,
            "LOCAL_WORLD_SIZE": GPUS, "FAKE_NODE": node, "NCCL_HOSTID": f"node{node + 1:02}",
            "FAKE_GPUS": GPUS, "FAKE_MEMORY": 64}


class World:
    """One run: exit codes and stderr of each rank, and rank 0's result."""

    def __init__(self, *arguments, **changed):
        gone = ("OMPI_", "PMI", "SLURM_", "NCCL_", "MASTER_", "FAKE_")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
        with tempfile.TemporaryDirectory(prefix="fake-nodes-") as folder:
            suite, path = os.path.join(folder, "nodes.ini"), os.path.join(folder, "result.json")
            with open(suite, "w", encoding="utf-8") as file:
                file.write(SUITE)
            ranks = []
            for rank in range(NODES * GPUS):
                env = dict(plain, NCCL_COMM_ID="10.0.0.1:29500", TMPDIR=folder)
                env.update({name: str(value) for name, value in place(rank).items()})
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
        odd = {f"rank{rank}": {"FAKE_NVML": "driver=99"} for rank in range(8, 12)}
        world = World(**odd)
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
                     "NVLink: within each node", "odd: node03: driver 580.99 against 580.65"):
            self.assertIn(line, world.err)
        self.assertNotIn("node03", world.out)
        self.assertEqual(world.errors[1:], [""] * 15)

    def test_domain_over_nodes(self):
        rows = {f"rank{rank}": {"FAKE_NVML": f"fabric={1 + rank // 8}"} for rank in range(16)}
        world = World("--only", "launch", **rows)
        self.assertEqual(world.codes, [0] * 16, world.errors)
        self.assertIn("NVLink: 2 domains over nodes, of 2 nodes each", world.err)

    def test_one_gpu_for_two(self):
        """NCCL finds it before the ranks can speak: the two ranks say it, the others end too."""
        world = World("--only", "launch", rank6={"LOCAL_RANK": "1"})
        words = "ranks 5 and 6 have one device between them, "
        for rank in range(16):
            twin = rank in (5, 6)
            self.assertEqual(world.codes[rank] == 64, twin, world.errors[rank])
            self.assertNotEqual(world.codes[rank], 0)
            self.assertEqual(words in world.errors[rank], twin, world.errors[rank])
            self.assertLessEqual(len(world.errors[rank].splitlines()), 1)
        self.assertIsNone(world.result)

    def test_one_gpu_for_two_containers(self):
        """NCCL takes them for two nodes."""
        world = World("--only", "launch", rank6={"LOCAL_RANK": "1", "NCCL_HOSTID": "pod-7"})
        self.assertEqual(world.codes, [64] * 16, world.errors)
        self.assertIn("ranks 5 and 6 have one device between them, NVIDIA H200 (fake) 0000:43:00.0 "
                      "on node02; ", world.err)
        self.assertEqual(len(world.err.splitlines()), 1)
        self.assertEqual(world.errors[1:], [""] * 15)
        self.assertIsNone(world.result)

    def test_another_library(self):
        rows = {f"rank{rank}": {"FAKE_NCCL_VERSION": "22703"} for rank in range(12, 16)}
        world = World("--only", "launch", **rows)
        self.assertEqual(world.codes, [64] * 16, world.errors)
        self.assertIn("the ranks use different communication libraries: ranks 12-15 on node04: "
                      "NCCL 2.27.3; the other 12: NCCL 2.", world.err)
        self.assertEqual(world.errors[1:], [""] * 15)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
