#!/usr/bin/env python3
"""One changed element of one rank's output makes a case `wrong`, names the rank, and ends with 5.

Usage: test_wrong.py PROGRAM CONFIGS [CORRUPTING-PROGRAM]
"""
import json
import os
import subprocess
import sys
import tempfile

SECTIONS = ["gemm", "membw", "collective", "sendrecv", "overlap", "trainstep"]


def run(program, suite, section, rank, folder):
    result = os.path.join(folder, "result.json")
    env = {key: value for key, value in os.environ.items() if key != "CM_CORRUPT"}
    if rank is not None:
        env["CM_CORRUPT"] = str(rank)
    # Every set of buffers is used, however slow the machine: the changed element is in the middle.
    # Small matrices have more sets than others.
    iterations = 4000 if section == "gemm" else 70
    done = subprocess.run([program, "run", suite, "--device", "cpu", "--ranks", "2", "--only",
                           section, "-o", result, "--set", f"global.max_iterations={iterations}", "--set",
                           "global.min_time=60s", "--set", "global.max_time=60s"],
                          env=env, cwd=folder, timeout=120, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    with open(result, encoding="utf-8") as file:
        return done.returncode, json.load(file)["cases"], done.stdout + done.stderr


def main():
    program = sys.argv[3] if len(sys.argv) > 3 else os.path.join(
        os.path.dirname(os.path.abspath(sys.argv[1])), "corrupt", "clustermark-corrupt")
    suite = os.path.join(os.path.abspath(sys.argv[2]), "smoke.ini")
    if not os.path.exists(program):
        print(f"skipped: {program} is not built")
        return 77
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for section in SECTIONS:
            code, cases, output = run(program, suite, section, 1, folder)
            wrong = [case for case in cases if case["status"] == "wrong"]
            named = [case for case in wrong if "rank 1" in case["reason"]]
            if code != 5 or len(wrong) != len(cases) or len(named) != len(wrong):
                bad += 1
                print(f"{section}: exit {code}, {len(wrong)} of {len(cases)} wrong, {len(named)} "
                      f"name rank 1\n{output}")
        code, cases, output = run(program, suite, "gemm", None, folder)
        if code != 0 or any(case["status"] != "ok" for case in cases):
            bad += 1
            print(f"nothing corrupted, and yet exit {code}\n{output}")
    print(f"{len(SECTIONS) + 1 - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
