#!/usr/bin/env python3
"""Worlds that outside launchers start: wrong ones are refused in one line, with 64 on every rank; the
nodes of right ones are told.

Usage: test_worlds.py PROGRAM CONFIGS
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM, CONFIGS = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
OTHER = os.path.join(os.path.dirname(PROGRAM), "other", "clustermark-other")
MPIRUN = shutil.which("mpirun")
SUITE = ("[global]\nruns = 1\nwarmup_time = 0\nwarmup_iterations = 1\nmin_time = 0\nmin_iterations = 3\n"
         "max_iterations = 4\n[launch]\n[trainstep]\nmodel = tiny\nplan = dp=2,tp=2\n")
LAUNCHERS = ("OMPI_", "PMI", "RANK", "WORLD_SIZE", "LOCAL_", "SLURM_", "NCCL_", "MASTER_")


class Worlds(unittest.TestCase):
    def setUp(self):
        if MPIRUN is None:
            self.skipTest("no mpirun")
        folder = tempfile.TemporaryDirectory(prefix="worlds-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        with open(os.path.join(self.folder, "suite.ini"), "w", encoding="utf-8") as file:
            file.write(SUITE)

    def mpirun(self, ranks, *commands):
        """Each command is what some ranks run, as (ranks, words); all ranks leave their exit codes
        behind, as mpirun has a mind of its own about which it gives."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1",
                   OMPI_MCA_orte_abort_timeout="20")
        words = [MPIRUN, "--oversubscribe"]
        for count, command in commands:
            script = f"{command}; code=$?; echo $code > code.$OMPI_COMM_WORLD_RANK; exit 0"
            words += ([":"] if len(words) > 2 else []) + ["-n", str(count), "sh", "-c", script]
        done = subprocess.run(words, cwd=self.folder, env=env, timeout=120, text=True, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True)
        codes = []
        for rank in range(ranks):
            with open(os.path.join(self.folder, f"code.{rank}"), encoding="utf-8") as file:
                codes.append(int(file.read()))
        return codes, done.stdout, done.stderr

    def refused(self, ranks, words, *commands, said=1):
        codes, out, err = self.mpirun(ranks, *commands)
        lines = [line for line in err.splitlines() if line.startswith("clustermark: ")]
        self.assertEqual(codes, [64] * ranks, err)
        self.assertEqual(len(lines), said, err)
        self.assertEqual(lines, err.splitlines(), "and nothing else")
        self.assertIn(words, lines[0])
        self.assertEqual(out, "")
        self.assertFalse(os.path.exists(os.path.join(self.folder, "r.json")))

    RUN = f"{PROGRAM} run suite.ini -o r.json"

    def test_another_version(self):
        if not os.path.exists(OTHER):
            self.skipTest(f"{OTHER} is not built")
        self.refused(4, "the ranks run different programs: rank 2 on ",
                     (2, self.RUN), (1, f"{OTHER} run suite.ini -o r.json"), (1, self.RUN))
        self.refused(4, ": clustermark 0.1.0; the other 3: clustermark 9.9.9; install one version",
                     (1, self.RUN), (3, f"{OTHER} run suite.ini -o r.json"))

    def test_another_suite(self):
        self.refused(3, "the ranks run different suites or settings: rank 1 on ",
                     (1, self.RUN), (1, f"{self.RUN} --set launch.max_time=3s"), (1, self.RUN))

    def test_too_few_ranks(self):
        self.refused(2, "--ranks 4, but mpirun started 2", (2, f"{self.RUN} --ranks 4"))

    def test_nested(self):
        self.refused(2, "--ranks 1, but mpirun started 2", (2, f"{self.RUN} --ranks 1"))
        self.refused(3, "rank 0 of 3 (mpirun) and rank 0 of 1 (torchrun)",
                     (3, f"RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 {self.RUN}"))
        # The outer launcher's words are gone, but not its traces.
        self.refused(2, "PMIX_RANK is in the environment",
                     (2, "rank=$OMPI_COMM_WORLD_RANK; unset OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK "
                         f"OMPI_COMM_WORLD_LOCAL_RANK; {self.RUN}; code=$?; "
                         "OMPI_COMM_WORLD_RANK=$rank; (exit $code)"), said=2)

    def test_no_mpi(self):
        """N runs of one rank each, in the place of one of N."""
        alone = os.path.join(self.folder, "clustermark")
        shutil.copy(PROGRAM, alone)
        self.refused(3, "mpirun started 3 ranks, and this program cannot make one world of them "
                        "without mpi: ", (3, f"{alone} run suite.ini -o r.json --device cpu"))

    def test_nodes(self):
        codes, out, err = self.mpirun(
            4, (4, f"NCCL_HOSTID=node$((OMPI_COMM_WORLD_RANK / 2)) {self.RUN} --only trainstep"))
        self.assertEqual(codes, [0] * 4, err)
        place = "trainstep: tensor groups of 2 within a node; data groups of 2 across 2 nodes"
        self.assertIn("4 ranks on 2 nodes, 2 on each\n  each node: ", err)
        self.assertIn(place, err)
        self.assertIn("4 ranks on 2 nodes, 2 on each", out)
        with open(os.path.join(self.folder, "r.json"), encoding="utf-8") as file:
            text = file.read()
        cluster = json.loads(text)["machine"]["cluster"]
        self.assertEqual([cluster["nodes"], cluster["ranks"], cluster["odd"]], [2, 4, []])
        self.assertEqual([kind["count"] for kind in cluster["kinds"]], [2])
        self.assertEqual(cluster["placement"], [place])
        self.assertNotIn("node0", text)
        codes, out, err = self.mpirun(4, (4, f"NCCL_HOSTID=node$((OMPI_COMM_WORLD_RANK % 2)) "
                                             f"{self.RUN} --only trainstep -q --show-hosts"))
        self.assertEqual((codes, err), ([0] * 4, "r.json\n"))
        with open(os.path.join(self.folder, "r.json"), encoding="utf-8") as file:
            cluster = json.load(file)["machine"]["cluster"]
        self.assertEqual(cluster["kinds"][0]["nodes"], "node0 to node1")
        self.assertEqual(cluster["placement"], ["trainstep: tensor groups of 2 across 2 nodes; data "
                                                "groups of 2 within a node"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
