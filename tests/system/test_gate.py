#!/usr/bin/env python3
"""compare and gate of the built program, on real runs. Usage: test_gate.py PROGRAM CONFIGS

Results measured here, as they are and slowed down by an injected spin, through the command line: exit
codes, one-line errors, JSON that says what the text says, the selftest.
"""
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as ElementTree

PROGRAM = os.path.abspath(sys.argv[1])
with open(PROGRAM, "rb") as _file:
    _bytes = _file.read()
INSTRUMENTED = b"__asan_init" in _bytes or b"__tsan_init" in _bytes
SUITE = """; Small enough for one thread: a busy machine stops one of several at any time.
[global]
runs = 12
warmup_time = 5ms
min_time = 10ms
max_time = 30ms
max_iterations = 300
[memory]
workload = membw
op = copy
size = 64KiB
rotate = no
gate = bandwidth
gate_margin = 90%
"""
GATED = ["--metric", "memory/bandwidth"]


class Gate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = cls.temporary.name
        with open(os.path.join(cls.folder, "s.ini"), "w", encoding="ascii") as file:
            file.write(SUITE)
        for name, share in (("base", "0"), ("fresh", "0"), ("slow", "1000%")):
            done = cls.call("run", "s.ini", "--ranks", "1", "-q", "--set", f"memory.inject={share}",
                            "-o", f"{name}.json")
            assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def call(cls, *arguments):
        return subprocess.run([PROGRAM, *arguments], cwd=cls.folder, capture_output=True, text=True,
                              timeout=120, check=False)

    def check(self, code, *arguments):
        done = self.call(*arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        if code != 0:
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done

    def test_slower_is_a_regression(self):
        done = self.check(1, "gate", "base.json", "--new", "slow.json", *GATED)
        self.assertIn("verdict: regression", done.stdout)
        self.assertIn("slowed down on purpose", done.stdout)
        document = json.loads(self.check(1, "gate", "base.json", "--new", "slow.json", *GATED,
                                         "--json").stdout)
        self.assertEqual((document["outcome"], document["exit_code"]), ("regression", 1))
        # Ten times an iteration was spun away after it.
        self.assertLess(document["gated"][0]["change"], -0.6)

    def test_exports(self):
        self.check(1, "gate", "base.json", "--new", "slow.json", *GATED, "--export", "junit=g.xml",
                   "--export", "bmf=g.json", "--export", "markdown=g.md", "--export",
                   "annotations=g.txt")
        root = ElementTree.parse(os.path.join(self.folder, "g.xml")).getroot()
        self.assertEqual((root.get("tests"), root.get("failures")), ("1", "1"))
        failure = root.find("./testsuite/testcase[@name='memory/bandwidth']/failure")
        self.assertEqual(failure.get("type"), "regression")
        with open(os.path.join(self.folder, "g.json"), encoding="utf-8") as file:
            measures = json.load(file)
        self.assertEqual(measures["memory"]["bandwidth-verdict"]["value"], 1)
        change = measures["memory"]["bandwidth-change"]
        self.assertLess(change["lower_value"], change["value"])
        self.assertLess(change["value"], change["upper_value"])
        self.assertEqual(measures["gate"]["verdict"]["value"], 1)
        with open(os.path.join(self.folder, "g.txt"), encoding="utf-8") as file:
            self.assertTrue(file.read().startswith("::error title=memory/bandwidth::regression"))
        with open(os.path.join(self.folder, "g.md"), encoding="utf-8") as file:
            self.assertIn("| **regression** |", file.read())
        for bad in ("junit", "csv=x", "=x", "junit="):
            self.check(64, "gate", "base.json", "--new", "slow.json", *GATED, "--export", bad)

    def test_not_slower_is_none(self):
        # A margin beyond this machine's noise.
        self.check(0, "gate", "base.json", "--new", "fresh.json", *GATED, "--margin", "90%")

    def test_lines(self):
        """A result per line, alone and in a folder, counts as a file of each."""
        os.makedirs(os.path.join(self.folder, "lines"), exist_ok=True)
        texts = []
        for name in ("base", "fresh"):
            with open(os.path.join(self.folder, f"{name}.json"), encoding="utf-8") as file:
                texts.append(json.dumps(json.load(file)))
        with open(os.path.join(self.folder, "lines", "all.jsonl"), "w", encoding="utf-8") as file:
            file.write("\n\n".join(texts) + "\n")
        for base in ("lines", "lines/all.jsonl"):
            # The verdict depends on how far the two sessions happen to differ.
            done = self.call("gate", base, "--new", "slow.json", "--json")
            self.assertIn(done.returncode, (0, 1), done.stderr)
            document = json.loads(done.stdout)
            self.assertEqual(document["baseline"]["runs"], 24)
            self.assertEqual(document["gated"][0]["sessions"]["baseline"], 2)
        with open(os.path.join(self.folder, "empty.jsonl"), "w", encoding="utf-8"):
            pass
        for command in (["gate", "empty.jsonl", "--new", "slow.json"],
                        ["compare", "empty.jsonl", "slow.json"], ["report", "empty.jsonl"]):
            self.assertIn("no result in this file", self.check(64, *command).stderr)
        with open(os.path.join(self.folder, "lines", "bad.jsonl"), "w", encoding="utf-8") as file:
            file.write("{}\n")
        self.assertIn("bad.jsonl:1", self.check(64, "gate", "lines", "--new", "slow.json").stderr)

    def test_the_suite_declares(self):
        document = json.loads(self.check(1, "gate", "base.json", "--new", "slow.json",
                                         "--json").stdout)
        self.assertEqual([(row["key"], row["margin"]) for row in document["gated"]],
                         [("memory/bandwidth", 0.9)])

    def test_refusals(self):
        self.assertIn("inject", self.check(4, "gate", "slow.json", "--new", "base.json",
                                           *GATED).stderr)
        self.check(6, "gate", "--new", "base.json", *GATED)
        self.check(6, "gate", "base.json", "--new", "fresh.json", "--metric", "memory/nothing")
        self.check(64, "gate", "base.json", *GATED)
        self.check(64, "gate", "base.json", "--new", "nothing.json", *GATED)
        self.check(64, "gate", "base.json", "--new", "s.ini", *GATED)
        self.check(64, "gate", "base.json", "--new", "base.json", *GATED)
        self.check(64, "compare", "base.json")
        self.check(64, "compare", "base.json", "fresh.json", "--price", "dear")
        other = self.call("run", "s.ini", "--ranks", "1", "-q", "--set", "memory.size=32KiB", "-o",
                          "other.json")
        self.assertEqual(other.returncode, 0)
        done = self.check(4, "compare", "base.json", "other.json")
        self.assertIn("params:memory.size", done.stdout)
        self.assertIn("--allow-mismatch params", done.stderr)
        self.check(0, "compare", "base.json", "other.json", "--allow-mismatch", "params")

    def test_compare(self):
        done = self.check(0, "compare", "base.json", "slow.json", "--price", "2=3.6")
        self.assertIn("slower", done.stdout)
        self.assertIn("USD", done.stdout)
        document = json.loads(self.check(0, "compare", "base.json", "slow.json", "--json").stdout)
        row = next(row for row in document["metrics"] if row["key"] == "memory/bandwidth")
        self.assertEqual(row["against_first"][1]["verdict"], "worse")
        self.assertEqual(row["best"], 0)

    def test_price_of_tokens(self):
        """A real training step: what a million tokens cost, and joules where they are known."""
        for name in ("cheap", "dear"):
            done = self.call("run", "smoke", "--only", "trainstep", "--ranks", "1", "--runs", "4",
                             "-q", "-o", f"{name}.json")
            self.assertEqual(done.returncode, 0, done.stderr)
        prices = ["--price", "cheap=3.6USD/h,2026-11-01,offer", "--price", "dear=36EUR/h"]
        done = self.check(0, "compare", "cheap.json", "dear.json", "--price",
                          "cheap=3.6USD/h,2026-11-01,offer", "--price", "dear=36")
        self.assertIn("USD/Mtoken", done.stdout)
        self.assertIn("3.6 USD per hour, 2026-11-01, by offer", done.stdout)
        document = json.loads(self.check(0, "compare", "cheap.json", "dear.json", *prices[:2],
                                         "--price", "dear=36", "--json").stdout)
        rows = {row["key"]: row for row in document["metrics"]}
        for side, per_s in ((0, 0.001), (1, 0.01)):
            rate = rows["trainstep/tokens_per_s"]["sets"][side]
            cost = rows["trainstep/tokens_per_s.cost"]["sets"][side]
            self.assertLessEqual(cost["minimum"], cost["value"])
            # The uncertainty of the rate is the cost's.
            self.assertAlmostEqual(cost["minimum"] * rate["maximum"] / (per_s * 1e6), 1, 6)
        self.assertEqual(rows["trainstep/tokens_per_s.cost"]["unit"], "USD/Mtoken")
        # This machine does not tell its energy; one that does writes it into its runs.
        for name, joules in (("cheap", 0.5), ("dear", 0.6)):
            with open(os.path.join(self.folder, f"{name}.json"), encoding="utf-8") as file:
                value = json.load(file)
            for i, run in enumerate(value["cases"][0]["runs"]):
                run["metrics"]["energy_per_token"] = {"value": joules * (1 + i / 1000), "unit": "J",
                                                      "better": "lower"}
            with open(os.path.join(self.folder, f"{name}-j.json"), "w", encoding="utf-8") as file:
                json.dump(value, file)
        done = self.check(0, "compare", "cheap-j.json", "dear-j.json", "--only", "*/energy*")
        self.assertRegex(done.stdout, r"per_token +0\.50[01] J.* +0\.60[01] J")
        self.assertRegex(done.stdout, r"\+20\.0 %.*worse")
        # Two currencies cannot be held against each other.
        self.check(64, "compare", "cheap.json", "dear.json", *prices)

    def test_a_thousand_files(self):
        """Held against Python's json module, which only reads them; by processor time."""
        with open(os.path.join(self.folder, "base.json"), encoding="utf-8") as file:
            value = json.load(file)
        paths = []
        for i in range(1000):
            side = "thousand/" + ("old" if i < 800 else "new")
            os.makedirs(os.path.join(self.folder, side), exist_ok=True)
            value["started"] = f"2026-01-01T{i // 60:02}:{i % 60:02}:00Z"
            paths.append(os.path.join(self.folder, side, f"{i:04}.json"))
            with open(paths[-1], "w", encoding="utf-8") as file:
                json.dump(value, file)
        for command in (["compare", "thousand/old", "thousand/new"],
                        ["gate", "thousand/old", "--new", "thousand/new", *GATED]):
            before = time.process_time()
            for path in paths[::4]:
                with open(path, encoding="utf-8") as file:
                    json.load(file)
            read = 4 * (time.process_time() - before)
            before = os.times()
            self.check(0, *command)
            after = os.times()
            used = sum(after[2:4]) - sum(before[2:4])
            print(f"{command[0]} of 1,000 files: {used:.2f} s of processor time, {used / read:.2f} "
                  "of what Python takes to read them", flush=True)
            if not INSTRUMENTED:  # a sanitizer takes times its own
                self.assertLess(used, 4 * read)

    def test_selftest(self):
        done = self.check(0, "gate", "base.json", "--selftest", "--baseline-runs", "3",
                          "--new-runs", "3", "--trials", "50", *GATED)
        self.assertIn("50 gates of 3 against 3 runs", done.stdout)
        self.assertIn("5 % found", done.stdout)


unittest.main(argv=sys.argv[:1])
