#!/usr/bin/env python3
"""The program on a real Slurm of four nodes. Usage: test_slurm.py PROGRAM CONFIGS [whole]

The smoke suite by `srun --mpi=pmix`, by plain srun, which brings no MPI, and by sbatch with the
shipped script: one world, every case fine, the launcher named. Without `whole` it is a few cases, to
be quick. Skipped, with the reason, where Slurm is not installed or cannot be started.
"""
import contextlib
import json
import os
import re
import sys
import time
import unittest

import cluster

PROGRAM = os.path.abspath(sys.argv[1])
CONFIGS = os.path.abspath(sys.argv[2])
WHOLE = sys.argv[3:] == ["whole"]
SMOKE = os.path.join(CONFIGS, "smoke.ini")
# Two cases, each of all nodes, and as short as can be.
SHORT = ["--only", "collective:op=all_reduce*", "--set", "*.min_time=1ms", "--set", "*.max_time=20ms",
         "--set", "*.warmup_time=1ms"]
RUN = [PROGRAM, "run", SMOKE, "--device", "cpu", *([] if WHOLE else SHORT)]
# Four nodes share this machine's cores.
ENVIRONMENT = {"OMPI_MCA_mpi_yield_when_idle": "1", "CLUSTERMARK": PROGRAM}


class Slurm(unittest.TestCase):
    slurm = None

    def tell(self, *words, seconds=400, **variables):
        done = self.slurm.run(*words, seconds=seconds, check=False, **ENVIRONMENT, **variables)
        return done.returncode, done.stdout, done.stderr

    def check_world(self, path, ranks):
        with open(self.slurm.path(path), encoding="utf-8") as file:
            result = json.load(file)
        self.assertEqual(result["ranks"], ranks)
        self.assertEqual(len(result["devices"]), ranks)
        self.assertEqual(result["ending"], "complete")
        self.assertEqual(result["suite"]["launcher"], "srun")
        self.assertFalse(result["suite"]["fresh_processes"])
        self.assertGreaterEqual(len(result["cases"]), 19 if WHOLE else 2)
        for case in result["cases"]:
            self.assertEqual(case["ranks"], ranks, case["name"])
            # What only GPUs have is skipped; all else is measured and right.
            skipped = case["workload"] in ("hostlink", "p2p")
            self.assertEqual(case["status"], "skipped" if skipped else "ok",
                             f"{case['name']}: {case.get('reason')}")
        return result

    def check_report(self, told, ranks):
        code, out, err = told
        self.assertEqual(code, 0, out + err)
        # One report, of rank 0.
        self.assertEqual(len(re.findall("^verdict: fine", out, re.M)), 1, out)
        self.assertIn(f", cpu, {ranks} ranks,", out)

    def test_srun_with_pmix(self):
        told = self.tell("srun", "-N", "4", "--mpi=pmix", *RUN, "-o", "pmix.json")
        self.check_report(told, 4)
        self.check_world("pmix.json", 4)

    def test_plain_srun(self):
        told = self.tell("srun", "-N", "4", *RUN, "-o", "plain.json", "--cloud")
        self.check_report(told, 4)
        result = self.check_world("plain.json", 4)
        # What the job is, the ranks still know; mpirun's ways to them are not the user's.
        self.assertEqual(result["placement"]["slurm"]["nodes"], "4")
        self.assertNotIn("OMPI_MCA_plm", result["environment"])

    @unittest.skipUnless(WHOLE, "the whole suite alone")
    def test_several_ranks_on_each_node(self):
        told = self.tell("srun", "-N", "2", "--ntasks-per-node=2", "--overcommit", PROGRAM, "run",
                         SMOKE, "--device", "cpu", "-o", "two.json")
        self.check_report(told, 4)
        self.check_world("two.json", 4)

    def test_batch_script(self):
        options = [[]] if not WHOLE else [[], ["--mpi=pmix"]]
        for words in options:
            told = self.tell("sbatch", "--wait", "-N", "4", "--ntasks-per-node=1",
                             "--gpus-per-node=0", "--output=batch.out",
                             os.path.join(CONFIGS, "launch", "slurm.sbatch"), *RUN[2:],
                             CLUSTERMARK_SRUN=" ".join(words))
            with open(self.slurm.path("batch.out"), encoding="utf-8") as file:
                out = file.read()
            self.check_report((told[0], out, told[2]), 4)
            job = re.search(r"Submitted batch job (\d+)", told[1]).group(1)
            self.check_world(f"clustermark-{job}.json", 4)

    def test_a_rank_that_never_comes(self):
        begin = time.monotonic()
        code, out, err = self.tell("srun", "-N", "4", "sh", "-c",
                                   '[ "$SLURM_PROCID" = 2 ] || exec "$@"', "sh", *RUN,
                                   "-o", "never.json", "--wait", "5s")
        self.assertEqual(code, 64, out + err)
        self.assertLess(time.monotonic() - begin, 30)
        lines = [line for line in err.splitlines() if line.startswith("clustermark:")]
        self.assertEqual(lines, ["clustermark: 4 ranks were expected within 5.00 s, and 3 came; "
                                 "missing: 2"])
        self.assertFalse(os.path.exists(self.slurm.path("never.json")))

    def test_a_mistake_is_told_once(self):
        code, _, err = self.tell("srun", "-N", "4", PROGRAM, "run", SMOKE, "--only", "nothing")
        self.assertEqual(code, 64)
        self.assertEqual(len(re.findall("^clustermark: ", err, re.M)), 1, err)


if __name__ == "__main__":
    reason = cluster.why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        sys.exit(77)
    slurm = cluster.Cluster(4, keep=[PROGRAM, CONFIGS])
    try:
        slurm.__enter__()
    except (RuntimeError, OSError) as error:
        print(f"skipped: Slurm does not start here: {error}")
        sys.exit(77)
    with contextlib.ExitStack() as stack:
        stack.push(slurm.__exit__)
        Slurm.slurm = slurm
        unittest.main(argv=sys.argv[:1])
