#!/usr/bin/env python3
"""The workflows of configs/ci, their steps run as a shell would. Usage: test_ci.py PROGRAM CONFIGS

A repository of two commits stands for the project: its ./bootstrap build puts the built program in
place, so that the steps are what is tried and not a compiler. Skipped without python3-yaml.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

try:
    import yaml
except ImportError:
    print("skipped: no module yaml to read the workflows with (apt-get install python3-yaml)")
    sys.exit(77)

PROGRAM, CONFIGS = (os.path.abspath(path) for path in sys.argv[1:3])
SUITE = """[global]
runs = 1
warmup_time = 0
min_time = 0
max_time = 20ms
[launch]
[memory]
workload = membw
op = copy
size = 256KiB
"""
# Every program that `run` calls for: the built one, with two ranks on the CPU.
BOOTSTRAP = """#!/bin/sh
set -eu
[ "$1" = build ]
mkdir -p build/release/bin
cat > build/release/bin/clustermark <<'END'
#!/bin/sh
if [ "$1" = run ] && [ -f "{marker}" ] && [ "$(cat "{marker}")" != "" ]; then
    exit "$(cat "{marker}")"
fi
exec "{program}" "$@"
END
chmod +x build/release/bin/clustermark
"""


def has_gate():
    done = subprocess.run([PROGRAM, "gate", "--help"], capture_output=True, check=False)
    return done.returncode == 0


class Workflows(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        self.project = os.path.join(self.top, "project")
        self.marker = os.path.join(self.top, "exit")
        os.makedirs(os.path.join(self.project, "configs"))
        shutil.copytree(os.path.join(CONFIGS, "ci"), os.path.join(self.project, "configs", "ci"))
        self.put("bootstrap", BOOTSTRAP.replace("{program}", PROGRAM).replace("{marker}",
                                                                              self.marker))
        os.chmod(os.path.join(self.project, "bootstrap"), 0o755)
        self.put("tiny.ini", SUITE)
        self.put(".gitignore", "/build/\n/speed/\n")
        self.git("init", "-q", "-b", "main")
        for subject in ("base", "head"):
            self.put("what", subject)
            self.git("add", "-A")
            self.git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", subject)

    def put(self, name, text):
        with open(os.path.join(self.project, name), "w", encoding="utf-8") as file:
            file.write(text)

    def git(self, *arguments):
        subprocess.run(["git", *arguments], cwd=self.project, check=True, capture_output=True)

    def environment(self, **more):
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("GITHUB_", "CI_", "RUNNER_"))}
        return {**kept, "SUITE": "tiny.ini", "ROUNDS": "2", "CLUSTERMARK": ".", "BASE": "HEAD^",
                "CLUSTERMARK_RUN_OPTIONS": "--device cpu --ranks 1", **more}

    def shell(self, script, environment, flags=("-e",)):
        return subprocess.run(["sh", *flags, "-c", script], cwd=self.project, env=environment,
                              capture_output=True, text=True, timeout=120, check=False)

    def load(self, name):
        with open(os.path.join(self.project, "configs", "ci", name), encoding="utf-8") as file:
            return yaml.safe_load(file)

    def check_results(self):
        speed = os.path.join(self.project, "speed")
        for side in ("base", "head"):
            names = sorted(os.listdir(os.path.join(speed, side)))
            self.assertEqual(names, ["1.json", "2.json"])
            for name in names:
                with open(os.path.join(speed, side, name), encoding="utf-8") as file:
                    self.assertEqual(json.load(file)["ending"], "complete")
        root = ElementTree.parse(os.path.join(speed, "junit.xml")).getroot()
        self.assertEqual(len(root.findall(".//testcase")), 4)
        with open(os.path.join(speed, "report.html"), encoding="utf-8") as file:
            self.assertIn("Comparison", file.read())

    def run_github(self, **more):
        """The steps in their order until one fails; `if: always()` ones are GitHub's own actions."""
        job = self.load("github-gpu.yml")["jobs"]["speed"]
        summary = os.path.join(self.top, "summary.md")
        environment = self.environment(RUNNER_TEMP=os.path.join(self.top, "temp"),
                                       GITHUB_STEP_SUMMARY=summary, **more)
        os.makedirs(environment["RUNNER_TEMP"], exist_ok=True)
        done = None
        names = []
        for step in job["steps"]:
            if "run" not in step:
                continue
            if step["name"] == "Gate" and not has_gate():
                continue
            names.append(step["name"])
            done = self.shell(step["run"], environment)
            if done.returncode != 0:
                break
        return names, done, summary

    def test_github(self):
        names, done, summary = self.run_github()
        if has_gate():
            # Two runs of each side are too few to tell: the gate says so without failing.
            self.assertIn(done.returncode, (0, 1), done.stdout + done.stderr)
        else:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("::notice title=clustermark::", done.stdout)
        self.assertGreaterEqual(len(names), 2)
        self.check_results()
        with open(summary, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("## clustermark: suite", text)
        if has_gate():
            self.assertIn("## clustermark gate: ", text)
            self.assertIn(" title=clustermark gate::", done.stdout)
            gate = ElementTree.parse(os.path.join(self.project, "speed", "gate.xml")).getroot()
            self.assertEqual(gate.find("testsuite").get("name"), "gate")

    def test_github_fails_when_head_cannot_measure(self):
        with open(self.marker, "w", encoding="utf-8") as file:
            file.write("70")
        names, done, _ = self.run_github()
        self.assertEqual(names[-1], "Measure both in turn")
        self.assertEqual(done.returncode, 70)

    def test_github_tells_wrong_results(self):
        """Exit code 5 of a run is kept, after all rounds."""
        corrupt = os.path.join(os.path.dirname(PROGRAM), "corrupt", "clustermark-corrupt")
        if not os.path.exists(corrupt):
            self.skipTest("the corrupting program is not built")
        # Enough iterations for the changed buffer to have its turn.
        environment = self.environment(
            CM_CORRUPT="0", CLUSTERMARK_RUN_OPTIONS="--device cpu --ranks 1 --set "
            "global.max_iterations=70 --set global.min_time=60s --set global.max_time=60s")
        done = self.shell(f"configs/ci/compare-revisions.sh '{PROGRAM}' '{corrupt}' speed tiny.ini 2",
                          environment)
        self.assertEqual(done.returncode, 5, done.stdout + done.stderr)
        with open(os.path.join(self.project, "speed", "annotations.txt"), encoding="utf-8") as file:
            self.assertIn("::error", file.read())
        self.check_results()

    def test_gitlab(self):
        job = self.load("gitlab-gpu.yml")["speed"]
        lines = [line for line in job["script"]
                 if has_gate() or ("clustermark\" gate" not in line and "gate.txt" not in line)]
        # A runner gives all lines to one shell.
        done = self.shell("\n".join(lines), self.environment(CI_PROJECT_DIR=self.project))
        self.assertIn(done.returncode, (0, 1) if has_gate() else (0,), done.stdout + done.stderr)
        self.check_results()
        done = self.shell("\n".join(job["after_script"]),
                          self.environment(CI_PROJECT_DIR=self.project))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.exists(os.path.join(self.project, ".speed-base")))
        self.assertEqual(job["artifacts"]["reports"]["junit"],
                         ["speed/junit.xml", "speed/gate.xml"])

    def test_shape(self):
        """What the services themselves read."""
        flow = self.load("github-gpu.yml")
        self.assertIn("pull_request", flow.get("on", flow.get(True)))
        self.assertEqual(flow["permissions"], {"contents": "read"})
        uses = [step["uses"] for step in flow["jobs"]["speed"]["steps"] if "uses" in step]
        self.assertEqual([name.split("@")[0] for name in uses],
                         ["actions/checkout", "actions/upload-artifact"])
        # Text of a pull request must not become part of a script.
        for step in flow["jobs"]["speed"]["steps"]:
            self.assertNotIn("${{", step.get("run", ""))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
