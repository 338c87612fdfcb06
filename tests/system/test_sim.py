#!/usr/bin/env python3
"""The virtual clock of the built program. Usage: test_sim.py PROGRAM CONFIGS

A simulated step is reported as a measured one is, says that nothing ran, is the same every time, and
is not comparable with what was measured. What a virtual clock cannot do is skipped or refused.
"""
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = os.path.abspath(sys.argv[1])
STEP = """[step]
workload = trainstep
model = llama3-8b
plan = dp=2,tp=2,pp=2,sp=1,zero=1
micro_batches = 4
"""
TINY = """[global]
min_time = 0.02s
max_time = 0.1s
[step]
workload = trainstep
model = tiny
"""


class Simulation(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cm-sim-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.write("step.ini", STEP)
        self.write("tiny.ini", TINY)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def run_program(self, *words, **changes):
        env = {key: value for key, value in os.environ.items()
               if not re.match(r"OMPI_|PMI|SLURM_|RANK$|WORLD_SIZE$|LOCAL_RANK$|COLUMNS$", key)}
        env.update(LC_ALL="C.UTF-8", **changes)
        return subprocess.run([PROGRAM, *words], cwd=self.folder, capture_output=True, text=True,
                              timeout=100, env=env)

    def simulate(self, *words):
        done = self.run_program("run", *words, "--device", "sim", "-o", "r.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "r.json\n")
        with open(os.path.join(self.folder, "r.json")) as file:
            return json.load(file), done.stdout

    def refuse(self, code, pattern, *words, **changes):
        before = sorted(os.listdir(self.folder))
        done = self.run_program(*words, **changes)
        with self.subTest(words=words):
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertRegex(done.stderr, r"\Aclustermark: [^\n]+\n\Z")
            self.assertRegex(done.stderr, pattern)
            self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_a_projected_step_is_executed(self):
        words = ("project", "--model", "llama3-405b", "--cluster", "H100", "--gpus", "131072",
                 "--batch", "32768", "--plan", "tp=8,pp=16", "--recompute", "selective")
        closed = json.loads(self.run_program(*words, "--json").stdout)
        before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = self.run_program(*words, "--execute", "--json")
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s, 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        executed = json.loads(done.stdout)
        self.assertEqual(closed.keys(), executed.keys())
        self.assertEqual(closed["breakdown"].keys(), executed["breakdown"].keys())
        step = executed["step_time_s"]
        self.assertAlmostEqual(sum(executed["breakdown"].values()) / step["value"], 1, 6)
        self.assertLess(step["p10"], step["value"])
        self.assertLess(step["value"], step["p90"])
        ratio = step["value"] / closed["step_time_s"]["value"]
        self.assertNotEqual(ratio, 1)
        self.assertLess(abs(ratio - 1), 0.1)
        self.assertTrue(any(re.match(r"\d+ operations of 16 stages executed", text)
                            for text in executed["assumptions"]), executed["assumptions"])
        self.refuse(64, "--execute is of one step", *words, "--execute", "--sweep", "8..64")
        self.refuse(64, "--execute is of one step", "project", "--fit", "x.csv", "--execute")

    def test_report(self):
        result, text = self.simulate("step.ini", "--ranks", "8")
        self.assertIn("a virtual clock: nothing ran, and times follow from the rates of machine h100",
                      text)
        self.assertEqual((result["device"], result["ranks"]), ("sim", 8))
        self.assertEqual([row["kind"] for row in result["devices"]], ["sim"])
        case = result["cases"][0]
        self.assertEqual((case["status"], case["reason"]), ("ok", ""))
        self.assertEqual(case["check"]["nothing"], "nothing is computed")
        self.assertEqual(case["runs"][0]["stop_reason"], "virtual")
        values = {name: row["value"] for name, row in case["metrics"].items()}
        self.assertAlmostEqual(values["step_time"] * values["tokens_per_s"], values["tokens"], 3)
        self.assertAlmostEqual(values["step_time"] - values["time.no_comm"],
                               values["exposed_comm_time"], 9)
        for name in ("mfu_full", "bubble_fraction", "comm_time.tensor", "comm_time.pipeline",
                     "phase_time.backward", "op_time.gemm", "memory_predicted"):
            self.assertGreater(values[name], 0, name)
        self.assertLess(values["mfu_full"], 0.7)  # the file's efficiency of products
        self.assertNotIn("peak_memory", values)
        again, _ = self.simulate("step.ini", "--ranks", "8")
        self.assertEqual(again["cases"][0]["metrics"], case["metrics"])

    def test_machine(self):
        h100, _ = self.simulate("step.ini", "--ranks", "8")
        gb200, text = self.simulate("step.ini", "--ranks", "8", "--machine", "gb200")
        self.assertIn("machine gb200", text)
        self.assertLess(gb200["cases"][0]["metrics"]["step_time"]["value"],
                        h100["cases"][0]["metrics"]["step_time"]["value"])
        self.write("small.ini", "[machine]\nbf16_rate = 1e15\nf32_rate = 1e14\nmemory_rate = 1e12\n"
                   "domain_rate = 1e11\nnetwork_rate = 1e10\nmemory = 8GB\n")
        done = self.run_program("run", "step.ini", "--device", "sim", "--ranks", "8", "--machine",
                                "./small.ini", "-o", "r.json")
        self.assertEqual(done.returncode, 5)
        self.assertRegex(done.stderr, "a step needs .* a device of small has 7.45 GiB")
        steps = []
        for spread in ("0", "0.05"):
            self.write("hosts.ini", "[machine]\nbf16_rate = 1e15\nf32_rate = 1e14\nmemory_rate = 1e12\n"
                       f"domain_rate = 1e11\nnetwork_rate = 1e10\ndomain = 2\nhost_spread = {spread}\n")
            steps.append(self.simulate("step.ini", "--ranks", "8", "--machine", "./hosts.ini")[0])
        even, uneven = [step["cases"][0]["metrics"] for step in steps]
        # Of what is computed before the ranks meet, which the optimizer is not.
        share = ((uneven["step_time"]["value"] - even["step_time"]["value"]) /
                 even["time.no_comm"]["value"] / (0.05 * math.sqrt(2 * math.log(4))))
        self.assertTrue(0.7 < share < 1, share)

    def test_explain_and_trace(self):
        done = self.run_program("run", "step.ini", "--device", "sim", "--ranks", "8", "--explain")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("a rank of each stage stands for 8 ranks", done.stdout)
        self.assertIn("the longest chain", done.stdout)
        self.simulate("step.ini", "--ranks", "8", "--trace", "trace.json")
        with open(os.path.join(self.folder, "trace.json")) as file:
            events = json.load(file)["traceEvents"]
        self.assertEqual({event["pid"] for event in events}, {0, 1})
        self.assertIn("send", {event["name"] for event in events})

    def test_not_comparable(self):
        self.simulate("tiny.ini", "--ranks", "1")
        done = self.run_program("run", "tiny.ini", "--device", "cpu", "--ranks", "1", "--runs", "1",
                                "-o", "cpu.json", "-q")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.run_program("compare", "cpu.json", "r.json")
        self.assertEqual(done.returncode, 4)
        self.assertIn("device is cpu in cpu and sim in r", done.stderr)
        done = self.run_program("gate", "r.json", "--new", "cpu.json", "--metric",
                                "step/step_time")
        self.assertEqual(done.returncode, 4, done.stderr)

    def test_skipped(self):
        self.write("mixed.ini", STEP + "[launch]\n[fit]\nworkload = trainstep\nlayers = fit\n"
                   "[other]\nworkload = trainstep\nplan = dp=4\n")
        result, _ = self.simulate("mixed.ini", "--ranks", "8")
        reasons = {case["name"]: case["reason"] for case in result["cases"]}
        self.assertEqual(reasons["step"], "")
        self.assertIn("training steps alone", reasons["launch"])
        self.assertIn("give their number", reasons["fit"])
        self.assertIn("for 4 ranks, and there are 8", reasons["other"])

    def test_refused(self):
        sim = ("--device", "sim")
        self.refuse(64, "--ranks 1024", "run", "step.ini", *sim)
        self.refuse(64, "leave --runs out", "run", "step.ini", *sim, "--ranks", "8", "--runs", "2")
        self.refuse(64, "no machine 'abacus'", "run", "step.ini", *sim, "--ranks", "8", "--machine",
                    "abacus")
        self.refuse(64, "are for --device sim", "run", "step.ini", "--machine", "h100")
        self.refuse(64, "are for --device sim", "run", "step.ini", "--device", "cpu", "--trace", "t")
        self.refuse(64, "all stages", "run", "step.ini", *sim, "--ranks", "8", "--explain=1")
        self.refuse(64, "is of one step", "run", "step.ini", *sim, "--ranks", "8", "--trace", "t",
                    "--set", "step.micro_batches=4,8")
        self.refuse(64, "one process; leave out", "run", "step.ini", *sim, "--ranks", "8",
                    RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")

    def test_large(self):
        """131,072 GPUs; generous, for the machine may be busy: the bench prints what it takes."""
        self.write("large.ini", "[large]\nworkload = trainstep\nmodel = llama3-405b\n"
                   "plan = dp=1024,tp=8,pp=16,sp=1,zero=1\nmicro_batches = 32\n"
                   "recompute = selective\n")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result, _ = self.simulate("large.ini", "--ranks", "131072")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.assertEqual(result["cases"][0]["status"], "ok")
        self.assertLess(after.ru_utime - before.ru_utime, 20)
        self.assertLess(after.ru_maxrss, 200e6 / 1024 * 2)  # of sanitizers too


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
