#!/usr/bin/env python3
"""The report opened in a real browser. Usage: test_report_page.py PROGRAM CONFIGS

No script error, no request beside the page, every chart there, strange names shown as text, tables
that sort by keyboard, light and dark, quick with 10,000 cases. Skipped where there is no Chromium.
"""
import base64
import copy
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

import browser

PROGRAM = os.path.abspath(sys.argv[1])
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "results")
KINDS = ["machine", "forest", "sweep", "ranks", "pairs", "steps", "strip", "history", "telemetry"]
HOSTILE = ["<script>window.hit=1</script>", "\"'><img src=x onerror=\"window.hit=2\">",
           "</title></script><script>window.hit=3</script>", "javascript:window.hit=4",
           "\u202eright-to-left\u202c", "&lt;&amp;", "</style>{}", "x" * 10240, "-->]]><!--"]


def metric(value, unit, better, runs=6, spread=0.01):
    return {"value": value, "runs": runs, "minimum": value * (1 - spread),
            "maximum": value * (1 + spread), "unit": unit, "better": better,
            "interval": {"low": value * (1 - spread), "high": value * (1 + spread),
                         "coverage": 0.96875}}


def case(name, workload, figures, runs=6, params=None, **more):
    """A case whose runs lie around its figures."""
    row = {"name": name, "section": name.split(":")[0], "workload": workload, "device": "cuda",
           "ranks": 4, "params": params or {}, "settings": {}, "status": "ok", "reason": "",
           "spread": 0.01, "metrics": {key: metric(*figure, runs=runs)
                                       for key, figure in figures.items()},
           "ceilings": {}, "check": {"checked": 1, "mismatches": 0, "worst": 0.1}, "runs": []}
    for i in range(runs):
        shift = 1 + 0.004 * math.sin(i * 2.4 + len(name))
        row["runs"].append({
            "run": i, "status": "ok", "reason": "", "started": f"2026-01-02T03:{i:02}:05Z",
            "samples_s": [1e-3], "metrics": {
                key: {"value": value * shift, "unit": unit, "better": better}
                for key, (value, unit, better) in figures.items()},
            "telemetry": [{"clock": 1.7e9 + 1e6 * i, "power": 600 + rank, "temperature_c": 60 + i,
                           "throttled_fraction": 0.01 * i} for rank in range(4)],
            "check": {"checked": 1}})
    row.update(more)
    return row


def machine():
    text = subprocess.run([PROGRAM, "topo", "--json"], capture_output=True, text=True, check=True)
    return json.loads(text.stdout)


def result(scale=1.0, started="2026-01-02T03:04:05Z"):
    """A result that has something for every kind of chart."""
    sizes = [8 << (3 * i) for i in range(8)]
    cases = [case(f"all_reduce:size={size}", "collective",
                  {"time": (2e-6 + size / 3e11 / scale, "s", "lower"),
                   "algbw": (size / (2e-6 + size / 3e11) * scale, "B/s", "higher"),
                   "busbw": (size / (2e-6 + size / 3e11) * scale, "B/s", "higher")},
                  params={"op": "all_reduce", "size": size},
                  ceilings={"busbw": {"theoretical": {"value": 4.5e11, "fraction": 0.6,
                                                      "source": "links"}}}) for size in sizes]
    cases.append(case("gemm", "gemm", {
        "flop_rate": (7e14 * scale, "FLOP/s", "higher"),
        **{f"flop_rate.rank{rank}": (7e14 * scale * (1 - 0.02 * rank), "FLOP/s", "higher")
           for rank in range(4)}},
        spread_ranks={"flop_rate": {"worst": {"rank": 3, "value": 6.5e14}, "median": 7e14,
                                    "best": {"rank": 0, "value": 7e14}}}))
    cases.append(case("pairs", "p2p", {
        "bandwidth": (3e11, "B/s", "higher"),
        **{f"bandwidth.{a}-{b}": (3e11 + 1e9 * a * b, "B/s", "higher")
           for a in range(4) for b in range(4) if a != b}}))
    cases.append(case("step", "trainstep", {
        "tokens_per_s": (1e5 * scale, "1/s", "higher"), "step_time": (0.5 / scale, "s", "lower"),
        **{f"op_time.{name}": (0.1, "s", "lower") for name in ("gemm", "attention", "norm")},
        **{f"phase_time.{name}": (0.2, "s", "lower") for name in ("forward", "backward")}}))
    return {
        "schema": "clustermark.result", "version": "1.0", "ending": "complete", "started": started,
        "finished": started, "device": "cuda", "ranks": 4,
        "tool": {"name": "clustermark", "version": "0.1.0", "revision": "abc"},
        "machine": machine(), "stack": {"kernel": "Linux"}, "environment": {"NCCL_ALGO": "Ring"},
        "suite": {"name": "test", "text": "[global]\n", "runs": 6, "seed": 1},
        "devices": [{"rank": i, "name": "NVIDIA H200"} for i in range(4)], "cases": cases,
        "sweeps": [{"name": "all_reduce", "section": "all_reduce", "workload": "collective",
                    "key": "size", "unit": "B", "points": [row["name"] for row in cases[:8]],
                    "metrics": {}}]}


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = browser.Browser(browser.find())

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, value):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file)
        return path

    def report(self, *paths, **more):
        page = os.path.join(self.folder, "report.html")
        done = subprocess.run([PROGRAM, "report", *paths, "-o", page], capture_output=True,
                              text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.browser.open("file://" + page, **more)
        return page

    def check_clean(self, page):
        problems, requests = self.browser.problems()
        self.assertEqual(problems, [])
        self.assertEqual(requests, ["file://" + page])
        self.assertIsNone(self.browser.value("window.hit === undefined ? null : window.hit"))

    def full(self):
        """Two sides, the second slower and of three results."""
        for i in range(4):
            self.write(f"old/{i}.json", result(1 + 0.001 * i, f"2026-01-0{i + 1}T00:00:00Z"))
            self.write(f"new/{i}.json", result(0.9, f"2026-02-0{i + 1}T00:00:00Z"))
        return os.path.join(self.folder, "old"), os.path.join(self.folder, "new")

    def test_every_chart(self):
        page = self.report(*self.full())
        self.check_clean(page)
        for kind in KINDS:
            count = self.browser.value(
                f"document.querySelectorAll('figure.{kind} svg').length")
            self.assertGreater(count, 0, kind)
            low = self.browser.value(
                f"Math.min(...Array.from(document.querySelectorAll('figure.{kind} svg'), "
                "e => e.getBoundingClientRect().height))")
            self.assertGreater(low, 40, kind)
        bad = self.browser.value("document.querySelector('li.f-bad').textContent")
        self.assertIn("worse", bad)
        self.assertIn("-10.13 %", self.browser.value(
            "document.querySelector('table.changes').textContent").replace("\u2212", "-"))
        self.assertFalse(self.browser.value("/NaN|Infinity|-nan|\\binf\\b/i.test("
                                            "Array.from(document.querySelectorAll('svg'),"
                                            "e => e.outerHTML).join(''))"))
        self.assertLess(os.path.getsize(page), 5 << 20)

    def test_hostile_names(self):
        value = result()
        for i, name in enumerate(HOSTILE):
            row = value["cases"][i]
            value["sweeps"][0]["points"][i % 8] = name
            row.update(name=name, reason=name, section=name)
            row["metrics"][name] = metric(1.0, name[:40], "higher")
        for key in ("stack", "environment"):
            value[key] = {name: name for name in HOSTILE}
        value["suite"].update(name=HOSTILE[0], text="\n".join(HOSTILE))
        value["machine"]["packages"][0]["model"] = HOSTILE[0]
        value["machine"]["findings"].append({"level": "bad", "code": "x", "device": HOSTILE[0],
                                             "text": HOSTILE[1]})
        value["sweeps"][0]["name"] = HOSTILE[2]
        value["cases"][0]["workload"] = HOSTILE[1]
        path = self.write(f"{HOSTILE[0].replace('/', '_')}.json", value)
        other = self.write("b.json", value)
        page = self.report(path, other)
        self.check_clean(page)
        self.assertEqual(self.browser.value("document.querySelectorAll('script').length"), 1)
        self.assertEqual(self.browser.value("document.querySelectorAll('img').length"), 0)
        texts = set(self.browser.value("Array.from(document.querySelectorAll('td.k'), "
                                       "e => e.textContent)"))
        for name in HOSTILE:
            self.assertIn(name, texts)
        # A direction in a name ends with it; plain short text has none.
        self.assertTrue(self.browser.value("Array.from(document.querySelectorAll('td.k')).every("
                                           "e => e.firstElementChild ? e.firstElementChild.tagName === "
                                           "'BDI' : /^[ -~]{0,60}$/.test(e.textContent))"))
        self.assertLess(self.browser.value("document.documentElement.scrollWidth - "
                                           "document.documentElement.clientWidth"), 1)

    def test_mismatch_is_told(self):
        value = result()
        value["environment"]["NCCL_ALGO"] = "Tree"
        self.report(self.write("a.json", result()), self.write("b.json", value))
        findings = self.browser.value("document.querySelector('ul.findings').textContent")
        self.assertIn("not comparable: environment.NCCL_ALGO is Ring, and Tree", findings)
        self.assertEqual(self.browser.value("Array.from(document.querySelectorAll('tr.differs'), "
                                            "e => e.cells[0].textContent)"),
                         ["environment.NCCL_ALGO"])

    def test_sorting_by_keyboard(self):
        self.check_clean(self.report(self.write("a.json", result())))
        self.browser.value("document.querySelector('table.figures th:nth-child(3) button').focus()")
        for expected in ("ascending", "descending"):
            for kind in ("keyDown", "keyUp"):
                self.browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter",
                                  windowsVirtualKeyCode=13, text="\r")
            self.assertEqual(self.browser.value("document.querySelector('table.figures "
                                                "th:nth-child(3)').getAttribute('aria-sort')"),
                             expected)
            values = self.browser.value("Array.from(document.querySelectorAll('table.figures')[0]"
                                        ".tBodies[0].rows, r => Number(r.cells[2].dataset.v))")
            self.assertEqual(values, sorted(values, reverse=expected == "descending"))
            self.assertGreater(len(set(values)), 5)

    def test_filter(self):
        self.report(self.write("a.json", result()))
        self.browser.value("(e => { e.value = 'GEMM'; e.dispatchEvent(new Event('input')); })"
                           "(document.getElementById('filter'))")
        shown = self.browser.value("Array.from(document.querySelectorAll('table.figures tbody tr'))"
                                   ".filter(e => !e.hidden).map(e => e.cells[0].textContent)")
        self.assertEqual(set(shown), {"gemm"})

    def test_light_and_dark(self):
        colors = []
        for scheme in ("light", "dark"):
            self.report(self.write("a.json", result()), media={
                "features": [{"name": "prefers-color-scheme", "value": scheme}]})
            colors.append(self.browser.value(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle("
                "document.querySelector('svg.ch text')).fill]"))
        self.assertNotEqual(colors[0][0], colors[1][0])
        self.assertNotEqual(colors[0][1], colors[1][1])

    def test_screen_reader(self):
        """Every drawing has a name, every table its titles, sections their headings."""
        self.report(*self.full())
        tree = self.browser.call("Accessibility.getFullAXTree")["nodes"]
        images = [node for node in tree if node.get("role", {}).get("value") in ("image", "img")]
        self.assertGreaterEqual(len(images), len(KINDS))
        for node in images:
            self.assertTrue(node.get("name", {}).get("value"), node)
        self.assertTrue(self.browser.value("Array.from(document.querySelectorAll('table')).every("
                                           "t => t.caption && t.querySelector('th[scope=col]'))"))
        self.assertTrue(self.browser.value("Array.from(document.querySelectorAll('section')).every("
                                           "s => document.getElementById(s.getAttribute("
                                           "'aria-labelledby')))"))
        self.assertTrue(self.browser.value("Array.from(document.querySelectorAll('a[href^=\"#\"]'))"
                                           ".every(a => document.getElementById(a.hash.slice(1)))"))

    def test_print(self):
        self.report(self.write("a.json", result()))
        data = self.browser.call("Page.printToPDF", printBackground=True)["data"]
        self.assertGreater(len(base64.b64decode(data)), 10000)

    def test_ten_thousand_cases(self):
        value = result()
        value["cases"] = [case(f"gemm:m={i}", "gemm", {"flop_rate": (1e14 + i, "FLOP/s", "higher")},
                               runs=1) for i in range(10000)]
        value["sweeps"] = []
        path = self.write("many.json", value)
        begin = time.monotonic()
        page = self.report(path)
        wall = time.monotonic() - begin
        self.check_clean(page)
        self.assertEqual(self.browser.value(
            "document.querySelector('table.figures').tBodies[0].rows.length"), 10000)
        loaded, work = [], []
        for _ in range(3):  # the best of several is the page's own
            self.browser.open("file://" + page)
            work.append(self.browser.work_s())
            loaded.append(self.browser.value("performance.timing.loadEventEnd - "
                                             "performance.timing.navigationStart") / 1000)
        # Nor is the table only put off: all of it laid out, and seen.
        self.assertGreater(self.browser.value(
            "document.querySelector('table.figures').scrollIntoView(), "
            "document.querySelector('table.figures').getBoundingClientRect().height"), 100000)
        later = self.browser.work_s() - work[-1]
        print(f"10,000 cases: {os.path.getsize(page) >> 10} KiB, {min(work):.2f} s of work, loaded "
              f"after {min(loaded):.1f} s, with writing {wall:.1f} s; the table {later:.2f} s when "
              "it comes into view", flush=True)
        self.assertLess(min(work), 1)
        self.assertLess(min(loaded), 2)
        self.assertLess(later, 3)

    def test_standard_run(self):
        """As large as configs/standard.ini on eight GPUs: ten runs of every case, sweeps, a figure
        of each rank and pair; two machines."""
        pairs = [f"{a}-{b}" for a in range(8) for b in range(8) if a != b]
        for side, scale in (("a", 1.0), ("b", 0.97)):
            value = result(scale)
            names = [f"gemm:case={i}" for i in range(20)]
            cases = [case(name, "gemm", {
                "flop_rate": (7e14 * scale, "FLOP/s", "higher"), "time": (1e-3, "s", "lower"),
                **{f"flop_rate.rank{rank}": (7e14, "FLOP/s", "higher") for rank in range(8)}},
                runs=10) for name in names]
            cases += [case(f"membw:op={i}", "membw", {"bandwidth": (3e12, "B/s", "higher")}, runs=10)
                      for i in range(6)]
            cases += [case(f"collective{i}:size={8 << k}", "collective",
                           {"time": (1e-5, "s", "lower"), "algbw": (1e11, "B/s", "higher"),
                            "busbw": (2e11, "B/s", "higher")}, runs=10,
                           params={"op": "all_reduce", "size": 8 << k})
                      for i in range(4) for k in range(8)]
            cases += [case(f"{name}:kind={i}", name, {
                "bandwidth": (3e11, "B/s", "higher"), "latency": (1e-6, "s", "lower"),
                **{f"bandwidth.{pair}": (3e11, "B/s", "higher") for pair in pairs},
                **{f"latency.{pair}": (1e-6, "s", "lower") for pair in pairs}}, runs=10)
                for name in ("p2p", "sendrecv", "hostlink") for i in range(4)]
            value["cases"] += cases
            value["sweeps"] += [{"name": f"collective{i}", "section": f"collective{i}",
                                 "workload": "collective", "key": "size", "unit": "B",
                                 "points": [f"collective{i}:size={8 << k}" for k in range(8)],
                                 "metrics": {}} for i in range(4)]
            self.write(f"{side}.json", value)
        page = self.report(os.path.join(self.folder, "a.json"), os.path.join(self.folder, "b.json"))
        self.check_clean(page)
        size = os.path.getsize(page)
        print(f"a standard run of two machines: {size >> 10} KiB, {self.browser.work_s():.2f} s of "
              "work", flush=True)
        self.assertLess(size, 5e6)
        self.assertLess(self.browser.work_s(), 2)

    def test_policy(self):
        """The script that the policy allows is the one in the page, and another would not run."""
        page = self.report(self.write("a.json", result()))
        with open(page, encoding="utf-8") as file:
            text = file.read()
        script = re.search(r"<script>(.*)</script>", text, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        self.assertIn(f"script-src 'sha256-{digest}'", text)
        self.assertLess(len(script), 6000)
        with open(page, "w", encoding="utf-8") as file:
            file.write(text.replace("</main>", "<script>window.hit=9</script>"
                                    "<img src='http://127.0.0.1:9/x'></main>"))
        self.browser.open("file://" + page)
        self.assertIsNone(self.browser.value("window.hit === undefined ? null : window.hit"))
        self.assertNotEqual(self.browser.problems()[0], [])

    def test_recorded_fixtures(self):
        for name in ("gpus.json", "mixed.json"):
            self.check_clean(self.report(os.path.join(FIXTURES, name)))

    def test_single_charts(self):
        old, new = self.full()
        for kind in KINDS:
            out = os.path.join(self.folder, f"{kind}.svg")
            done = subprocess.run([PROGRAM, "report", "--svg", kind, old, new, "-o", out],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.browser.open("file://" + out)
            self.assertEqual(self.browser.problems()[0], [])
            self.assertEqual(self.browser.value("document.documentElement.tagName"), "svg")


if __name__ == "__main__":
    if browser.find() is None:
        print("skipped: no Chromium to open the report in (apt-get install chromium)")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
