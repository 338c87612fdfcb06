#!/usr/bin/env python3
"""History, exports and imports as their readers take them. Usage: test_publish.py PROGRAM CONFIGS

Each format is read by what is nearest to its reader: an XML parser, the rules of Go's benchmark
format, of OpenMetrics, of GitHub's workflow commands.
"""
import csv
import io
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

PROGRAM = os.path.abspath(sys.argv[1])
TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RUNS = os.path.join(TESTS, "fixtures", "results", "runs.json")
MIXED = os.path.join(TESTS, "fixtures", "results", "mixed.json")
IMPORTS = os.path.join(TESTS, "fuzz", "corpus", "import")


def run(*arguments, code=0):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, check=False, timeout=60)
    if done.returncode != code:
        raise AssertionError(f"{arguments}: exit {done.returncode}: {done.stderr.decode()}")
    if code != 0:
        lines = done.stderr.decode().splitlines()
        if len(lines) != 1:
            raise AssertionError(f"{arguments}: {lines}")
        return lines[0]
    return done.stdout.decode()


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, value):
        with open(self.path(name), "w", encoding="utf-8") as file:
            json.dump(value, file)
        return self.path(name)


class Exports(Folder):
    def export(self, name, *files):
        return run("export", "--format", name, *(files or (RUNS,)))

    def test_junit(self):
        root = ElementTree.fromstring(self.export("junit", MIXED))
        cases = root.findall("./testsuite/testcase")
        source = load(MIXED)["cases"]
        self.assertEqual(len(cases), len(source))
        kinds = {"wrong": "failure", "failed": "error", "skipped": "skipped"}
        for case, own in zip(cases, source):
            outcome = [child.tag for child in case if child.tag != "system-out"]
            self.assertEqual(outcome, [kinds[own["status"]]] if own["status"] in kinds else [])
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            self.assertEqual(int(root.get(name)), len(root.findall(f".//{tag}")))

    def test_junit_of_strange_text(self):
        value = load(RUNS)
        value["cases"][0]["name"] = "\ufffe\uffff]]>&<x y='\"'>\u0085\u202e"
        value["cases"][0].update(status="wrong", reason="\x01\x1b[31m\ufffe")
        root = ElementTree.fromstring(self.export("junit", self.write("a.json", value)))
        self.assertTrue(root.find(".//testcase").get("name").startswith("??]]>&<x y='\"'>"))

    def test_markdown(self):
        text = self.export("markdown", MIXED)
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        self.assertEqual(len(rows), len(load(MIXED)["cases"]) + 1)
        for row in rows:
            self.assertEqual(row.count("|"), 8)
        self.assertIn("**wrong**", rows[1])

    def test_markdown_stays_below_the_limit(self):
        value = load(RUNS)
        value["cases"] = [dict(value["cases"][0], name=f"{i}|<b>" + "x" * 3000, runs=[])
                          for i in range(1000)]
        value["cases"][-1].update(status="failed", reason="late but first")
        text = self.export("markdown", self.write("a.json", value))
        self.assertLess(len(text.encode()), 1024 * 1024)
        self.assertIn("late but first", text)
        left = int(re.search(r"(\d+) more rows are left out", text).group(1))
        self.assertEqual(left + sum(line.startswith("| ") for line in text.splitlines()), 1001)
        self.assertNotIn("<b>", text)

    def test_annotations(self):
        value = load(RUNS)
        value["cases"] = [dict(value["cases"][0], name=f"c{i}\n::error::x,y", status="failed",
                               reason="a%b\r\nc") for i in range(40)]
        lines = self.export("annotations", self.write("a.json", value)).splitlines()
        self.assertEqual(sum(line.startswith("::error") for line in lines), 10)
        self.assertEqual(len(lines), 11)
        self.assertIn("c0%0A::error::x,y failed: a%25b%0D%0Ac", lines[0])

    def test_bencher(self):
        value = json.loads(self.export("bmf"))
        metric = value["all_reduce:op=all_reduce,size=64KiB"]["busbw"]
        self.assertEqual(set(metric), {"value", "lower_value", "upper_value"})
        self.assertLessEqual(metric["lower_value"], metric["value"])
        self.assertLessEqual(metric["value"], metric["upper_value"])
        twice = json.loads(self.export("bmf", RUNS, RUNS))
        self.assertEqual(twice["gemm"]["flop_rate"]["value"], value["gemm"]["flop_rate"]["value"])

    def read_go(self, text):
        """The rules of golang.org/x/perf/benchfmt: keys, units, results."""
        config, units, results = {}, {}, []
        for line in text.splitlines():
            if line.startswith("Benchmark"):
                fields = line[len("Benchmark"):].split()
                self.assertEqual(len(fields) % 2, 0, line)
                int(fields[1])
                values = {}
                for number, unit in zip(fields[2::2], fields[3::2]):
                    tokens = re.findall(r"[A-Za-z]+", unit.split("/")[0])
                    self.assertFalse({"ns", "MB"} & set(tokens), "would be rescaled")
                    self.assertNotIn(unit, values)
                    values[unit] = float(number)
                results.append((fields[0], values))
            elif line.startswith("Unit"):
                fields = line.split()
                key, value = fields[2].split("=")
                self.assertEqual(key, "better")
                self.assertIn(value, ("higher", "lower"))
                self.assertNotIn(fields[1], units)
                units[fields[1]] = value
            else:
                self.assertRegex(line, r"^[a-z][^\sA-Z]*: .")
                key, value = line.split(": ", 1)
                config[key] = value
        return config, units, results

    def test_go(self):
        config, units, results = self.read_go(self.export("go"))
        self.assertEqual(config["suite"], "quick")
        self.assertEqual(units["time-sec"], "lower")
        self.assertEqual(units["busbw-B/s"], "higher")
        self.assertEqual(len(results), 12)
        name = "all_reduce/op=all_reduce/size=64KiB"
        own = [run["metrics"]["busbw"]["value"] for run in load(RUNS)["cases"][0]["runs"]]
        self.assertEqual([round(values["busbw-B/s"]) for key, values in results if key == name],
                         [round(value) for value in own])
        for _, values in results:
            self.assertLessEqual(set(values), set(units))
        self.read_go(self.export("go", MIXED))

    def test_google_benchmark(self):
        value = json.loads(self.export("google-benchmark"))
        self.assertIsInstance(value["context"]["caches"], list)
        rows = [row for row in value["benchmarks"] if row["name"].startswith("all_reduce")]
        self.assertEqual([row["repetition_index"] for row in rows], list(range(6)))
        for row, own in zip(rows, load(RUNS)["cases"][0]["runs"]):
            self.assertEqual(row["run_type"], "iteration")
            self.assertEqual(row["repetitions"], 6)
            self.assertAlmostEqual(row["real_time"], own["metrics"]["time"]["value"] * 1e9)
        names = {row["name"] for row in json.loads(self.export("google-benchmark", MIXED))
                 ["benchmarks"]}
        self.assertNotIn("overlap-big", names)  # it failed: its time would look fast

    def read_metrics(self, text):
        lines, types, samples, last = text.splitlines(), {}, [], None
        self.assertEqual(lines[-1], "# EOF")
        for line in lines[:-1]:
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.assertNotIn(name, types)  # families stand together
                types[name] = kind
                last = name
                continue
            match = re.match(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? '
                             r"([0-9.e+-]+)$", line)
            self.assertIsNotNone(match, line)
            self.assertEqual(match.group(1), last)
            samples.append((match.group(1), match.group(2), float(match.group(3))))
        self.assertEqual(len(samples), len(set(sample[:2] for sample in samples)))
        return types, samples

    def test_openmetrics(self):
        types, samples = self.read_metrics(self.export("openmetrics"))
        self.assertEqual(set(types.values()), {"gauge"})
        self.assertIn("clustermark_busbw_bytes_per_second", types)
        self.assertIn("clustermark_time_low_seconds", types)
        ranks = [labels for name, labels, _ in samples if 'of="rank0"' in (labels or "")]
        self.assertTrue(ranks)
        self.read_metrics(self.export("openmetrics", MIXED))

    def test_openmetrics_replaces_the_file_as_a_whole(self):
        target = self.path("clustermark.prom")
        with open(target, "w", encoding="utf-8") as file:
            file.write("old\n")
        old = os.stat(target).st_ino
        run("export", "--format", "openmetrics", RUNS, "-o", target)
        self.assertNotEqual(os.stat(target).st_ino, old)
        self.assertEqual(os.listdir(self.folder), ["clustermark.prom"])

    def test_csv(self):
        rows = list(csv.reader(io.StringIO(self.export("csv", RUNS, MIXED))))
        self.assertEqual(rows[0][:3], ["time", "commit", "machine"])
        self.assertEqual(len(rows), 3)
        for row in rows:
            self.assertEqual(len(row), len(rows[0]))

    def test_csv_runs_no_formula(self):
        value = load(RUNS)
        value["cases"][0]["name"] = '=cmd("x")'
        header = next(csv.reader(io.StringIO(self.export("csv", self.write("a.json", value)))))
        self.assertFalse([name for name in header if name.startswith(("=", "+", "-", "@"))])

    def test_bad_input(self):
        self.assertIn("format", run("export", RUNS, code=64))
        self.assertIn("bmf", run("export", "--format", "bmv", RUNS, code=64))
        self.assertIn("nowhere.json", run("export", "--format", "go", "nowhere.json", code=64))


class Imports(Folder):
    def load(self, name, *more):
        return json.loads(run("import", os.path.join(IMPORTS, name), *more))

    def test_nccl(self):
        value = self.load("nccl")
        cases = {case["name"]: case for case in value["cases"]}
        own = cases["nccl-tests:op=all_reduce,dtype=f32,size=1MiB"]
        self.assertEqual(own["status"], "ok")
        self.assertAlmostEqual(own["metrics"]["time"]["value"], 21.5e-6)
        self.assertAlmostEqual(own["metrics"]["busbw"]["value"], 1048576 / 21.5e-6 * 1.75, -5)
        self.assertEqual(own["runs"][0]["samples_s"], [2.1e-5, 2.15e-5, 2.2e-5])
        self.assertEqual(cases["nccl-tests:op=all_reduce,dtype=f32,size=1GiB,in_place=yes"]
                         ["status"], "wrong")
        self.assertEqual(value["ranks"], 8)
        self.assertEqual(value["stack"]["comm_library"], "NCCL 2.28.9")
        self.assertEqual(value["environment"]["NCCL_ALGO"], "Ring")
        self.assertNotIn("do-not-copy", json.dumps(value))
        self.assertNotIn("10.0.0.1", json.dumps(value))

    def test_nvbandwidth(self):
        cases = {case["name"]: case for case in self.load("nvbandwidth")["cases"]}
        figures = {name: {key: metric["value"] for key, metric in case["metrics"].items()}
                   for name, case in cases.items()}
        self.assertEqual(figures["nvbandwidth:host_to_device_memcpy_ce"]["bandwidth"], 54.5e9)
        self.assertNotIn("bandwidth_sum", figures["nvbandwidth:host_to_device_memcpy_ce"])
        self.assertEqual(figures["nvbandwidth:all_to_host_memcpy_ce"]["bandwidth_sum"], 82e9)
        # "<-": the column's GPU sends.
        pairs = figures["nvbandwidth:device_to_device_memcpy_write_ce"]
        self.assertEqual((pairs["bandwidth.1-0"], pairs["bandwidth.0-1"]), (390.5e9, 380.25e9))
        both = figures["nvbandwidth:device_to_device_bidirectional_memcpy_read_sm"]
        self.assertEqual(both, {"bandwidth.0-1": 700e9, "bandwidth.1-0": 710e9, "bandwidth": 700e9})
        self.assertAlmostEqual(figures["nvbandwidth:host_device_latency_sm"]["latency"], 812e-9)
        self.assertEqual(cases["nvbandwidth:multinode_bisect_write_ce"]["status"], "skipped")
        self.assertEqual(cases["nvbandwidth:device_local_copy"]["status"], "failed")

    def test_names_of_a_result(self):
        own = load(RUNS)
        own["cases"][0]["params"] = {"op": "all_reduce", "size": 1048576, "dtype": "f32",
                                     "in_place": False, "rotate": True}
        path = self.write("own.json", own)
        names = [case["name"] for case in self.load("nccl", "--like", path)["cases"]]
        self.assertEqual(names[0], "all_reduce:op=all_reduce,size=64KiB")
        self.assertEqual(len(set(names)), 4)
        foreign = self.path("foreign.json")
        run("import", os.path.join(IMPORTS, "nccl"), "--like", path, "-o", foreign)
        run("report", path, foreign, "-o", self.path("report.html"))
        with open(self.path("report.html"), encoding="utf-8") as file:
            self.assertIn("against the first", file.read())

    def test_refused(self):
        self.assertIn("version 4", run("import", os.path.join(IMPORTS, "nccl-newer"), code=64))
        self.assertIn("neither", run("import", RUNS, code=64))


class History(Folder):
    def fill(self, levels, digests=None, change=None):
        """A result per day, `levels` times what runs.json has."""
        for i, level in enumerate(levels):
            value = load(RUNS)
            value["started"] = f"2026-03-{i + 1:02}T00:00:00Z"
            value["tool"]["revision"] = f"r{i}"
            if digests:
                value["machine"]["digest"] = digests[i]
            if change:
                change(i, value)
            for case in value["cases"]:
                for metric in case["metrics"].values():
                    metric["value"] *= level * (1 + 0.003 * math.sin(7 * i))
            self.write(f"{(i * 7) % 31:02}.json", value)  # not in their order

    def history(self, *more):
        return json.loads(run("history", self.folder, "--json", *more))

    def test_change(self):
        self.fill([1] * 12 + [0.9] * 8)
        value = self.history()
        self.assertEqual([row["revision"] for row in value["results"]],
                         [f"r{i}" for i in range(20)])
        series = {row["metric"]: row for row in value["series"]}
        self.assertEqual(set(series), {"busbw", "flop_rate"})
        change, = series["flop_rate"]["changes"]
        self.assertEqual(change["time"], "2026-03-13T00:00:00Z")
        self.assertEqual(change["verdict"], "worse")
        self.assertAlmostEqual(change["change"], -0.1, 2)
        self.assertLess(change["p"], 0.001)
        time, = self.history("--metric", "time")["series"]
        self.assertEqual(time["changes"][0]["verdict"], "better")
        self.assertEqual(self.history("--margin", "20%")["series"][0]["changes"], [])

    def test_other_machine(self):
        self.fill([1] * 10 + [0.5] * 10, ["a"] * 10 + ["b"] * 10)
        value = self.history()
        self.assertEqual(len(value["machines"]), 2)
        self.assertEqual([row["changes"] for row in value["series"]], [[], []])

    def test_other_surroundings(self):
        """What steers a library, or another setting of one case: no change of speed."""
        def change(i, value):
            if i >= 10:
                value["environment"]["NCCL_ALGO"] = "Tree"
        self.fill([1] * 10 + [0.5] * 10, change=change)
        value = self.history()
        self.assertEqual(len(value["machines"]), 2)
        self.assertEqual([row["changes"] for row in value["series"]], [[], []])

    def test_other_work(self):
        def change(i, value):
            if i >= 10:
                value["cases"][1]["params"]["m"] = 128
        self.fill([1] * 10 + [0.5] * 10, change=change)
        value = self.history()
        self.assertEqual(len(value["machines"]), 1)
        self.assertEqual([len(row["changes"]) for row in value["series"]], [1, 0])

    def test_nothing(self):
        self.fill([1] * 25)
        self.assertEqual([row["changes"] for row in self.history()["series"]], [[], []])

    def test_lines(self):
        self.fill([1] * 6 + [1.2] * 6)
        with open(self.path("all.jsonl"), "w", encoding="utf-8") as file:
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(".json"):
                    file.write(json.dumps(load(self.path(name))) + "\n\n")
        value = json.loads(run("history", self.path("all.jsonl"), "--json"))
        self.assertEqual(len(value["results"]), 12)
        self.assertEqual(value["series"][0]["changes"][0]["verdict"], "better")
        with open(self.path("all.jsonl"), "a", encoding="utf-8") as file:
            file.write("{\n")
        self.assertIn("all.jsonl:25", run("history", self.path("all.jsonl"), code=64))

    def test_text_and_csv(self):
        self.fill([1] * 12 + [0.9] * 8)
        text = run("history", self.folder)
        self.assertIn("20 results, 2 series, 1 machine", text)
        self.assertRegex(text, r"gemm flop_rate: from 2026-03-13T00:00:00Z on 134 GFLOP/s")
        rows = list(csv.reader(io.StringIO(run("history", self.folder, "--csv"))))
        self.assertEqual(len(rows), 21)
        self.assertEqual(rows[0][3:], ["all_reduce:op=all_reduce,size=64KiB busbw [B/s]",
                                       "gemm flop_rate [FLOP/s]"])
        values = [float(row[4]) for row in rows[1:]]
        self.assertLess(statistics.median(values[12:]), 0.92 * statistics.median(values[:12]))

    def test_strangers_are_left_out(self):
        self.fill([1] * 3)
        self.write("package.json", {"name": "x"})
        done = subprocess.run([PROGRAM, "history", self.folder, "--json"], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("package.json", done.stderr)
        self.assertEqual(len(json.loads(done.stdout)["results"]), 3)

    def test_bad_input(self):
        self.assertIn("no result in this folder", run("history", self.folder, code=64))
        self.assertIn("--json and --csv", run("history", RUNS, "--json", "--csv", code=64))
        run("history", code=64)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
