#!/usr/bin/env python3
"""Fails each call of the program in turn and looks at how it takes it.

    torture.py PROGRAM SUITE [--ranks N] [--seconds S] [--seed K] [--only PROCESS:KIND] [--jobs J]

PROGRAM is the program linked with tests/torture/fail.c. A first run collects the call paths of every
process (allocation, file, thread and MPI calls); then each path's first call is made to fail in a
run of its own, in an order drawn with the seed, until all were tried or S seconds have passed
(without --seconds: all). A run is bad when

  - it hangs, is killed by a signal, or a sanitizer finds something (a leak included);
  - it ends with 0 although a call failed, unless the result is whole all the same;
  - it fails without a message, or with a message that does not name the failure;
  - the result file does not read, or a case that was finished is not in it;
  - a process or a temporary file is left behind.

Prints each bad run with the line that repeats it, and "N passed, M failed" last.
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LIMIT_S = 90
# What a message says when it names a failed call of the kind; the call's own name always counts.
WORDS = {
    "alloc": ["memory"],
    "file": ["Input/output error", "No space left", "Permission denied", "Too many open files",
             "Connection refused", "Cannot allocate memory", "Resource temporarily",
             "Operation not permitted", "Invalid argument"],
    "thread": ["thread", "Resource temporarily"],
    "mpi": ["MPI_"],
}


def environment(folder, fail, log):
    here = os.path.dirname(os.path.abspath(__file__))
    env = dict(os.environ)
    env.update({
        "TMPDIR": os.path.join(folder, "tmp"),
        "ASAN_OPTIONS": f"log_path={folder}/sanitizer:exitcode=99:detect_leaks=1:"
                        "allocator_may_return_null=1:abort_on_error=0",
        "LSAN_OPTIONS": f"suppressions={here}/../lsan.supp:print_suppressions=0",
        "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:log_path={folder}/sanitizer",
        "OMPI_MCA_orte_tmpdir_base": os.path.join(folder, "mpi"),
    })
    if fail:
        env["CM_FAIL"] = fail
    if log:
        env["CM_FAIL_LOG"] = folder
    return env


def processes_of(folder):
    """Processes that still carry this run's folder in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if folder.encode() in file.read():
                    found.append(int(entry))
        except OSError:
            pass
    return found


def run_once(args, fail):
    folder = tempfile.mkdtemp(prefix="torture-")
    os.mkdir(os.path.join(folder, "tmp"))
    os.mkdir(os.path.join(folder, "mpi"))
    command = [args.program, "run", args.suite, "--device", "cpu", "--ranks", str(args.ranks),
               "--runs", "1", "-o", os.path.join(folder, "result.json")]
    for setting in args.set:
        command += ["--set", setting]
    outcome = {"folder": folder, "hung": False}
    process = subprocess.Popen(command, env=environment(folder, fail, True), cwd=folder,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        outcome["hung"] = True
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    outcome["code"] = process.returncode
    outcome["out"] = out.decode(errors="replace")
    outcome["err"] = err.decode(errors="replace")
    time.sleep(0.05)
    deadline = time.time() + 5
    while processes_of(folder) and time.time() < deadline:
        time.sleep(0.1)
    outcome["left"] = processes_of(folder)
    for pid in outcome["left"]:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    outcome["files"] = sorted(os.listdir(os.path.join(folder, "tmp")))
    outcome["stray"] = [name for name in os.listdir(folder)
                        if name.startswith("result.json") and name != "result.json"]
    outcome["sanitizer"] = ""
    for name in sorted(os.listdir(folder)):
        if name.startswith("sanitizer"):
            with open(os.path.join(folder, name), errors="replace") as file:
                outcome["sanitizer"] += file.read()
    return outcome


def read_result(outcome):
    """(the parsed result or None, why it does not read)."""
    path = os.path.join(outcome["folder"], "result.json")
    if not os.path.exists(path):
        return None, ""
    try:
        with open(path) as file:
            return json.load(file), ""
    except ValueError as error:
        return None, str(error)


def reasons_of(result):
    texts = []
    for case in (result or {}).get("cases", []):
        texts.append(str(case.get("reason", "")))
        for run in case.get("runs", []):
            texts.append(str(run.get("reason", "")))
    return "\n".join(texts)


def call_lines(outcome):
    path = os.path.join(outcome["folder"], "calls")
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [line.split() for line in file]


def judge(outcome, kind, name, expected_cases):
    """What is wrong with a run in which one call of `kind` failed; "" when nothing is."""
    if outcome["hung"]:
        return f"hung for {LIMIT_S} s"
    if outcome["sanitizer"]:
        return "sanitizer: " + outcome["sanitizer"][:2000]
    if outcome["code"] < 0:
        return f"killed by signal {-outcome['code']}"
    if outcome["code"] == 99:
        return "sanitizer exit without a log"
    if outcome["left"]:
        return f"{len(outcome['left'])} processes left behind"
    if outcome["files"] or outcome["stray"]:
        return f"files left behind: {outcome['files'] + outcome['stray']}"
    result, broken = read_result(outcome)
    if broken:
        return f"the result file does not read: {broken}"
    if outcome["code"] == 0:
        whole = result is not None and len(result.get("cases", [])) == expected_cases
        return "" if whole else "exit 0 with an incomplete result"
    text = outcome["err"] + reasons_of(result)
    if "clustermark: " not in outcome["err"] and not reasons_of(result).strip():
        return "failed without a message"
    if name not in text and not any(word in text for word in WORDS[kind]):
        return f"no message names {name}"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("suite")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--repeat", default="", help="the CM_FAIL of one bad run")
    args = parser.parse_args()
    started = time.time()
    seed = args.seed if args.seed is not None else int(started) % 100000

    clean = run_once(args, None)
    calls = [line for line in call_lines(clean) if line[0] != "FAILED"]
    result, broken = read_result(clean)
    if clean["code"] != 0 or clean["sanitizer"] or broken or not calls or not result:
        print(f"the clean run failed: exit {clean['code']} {broken}\n{clean['err']}"
              f"\n{clean['sanitizer'][:4000]}")
        return 1
    expected_cases = len(result["cases"])
    shutil.rmtree(clean["folder"])
    targets = [(line[0], line[1], line[2], line[4]) for line in calls
               if f"{line[0]}:{line[1]}".startswith(args.only)]
    if args.repeat:
        process, kind, path = args.repeat.split(":")
        targets = [row for row in targets if row[:3] == (process, kind, path)]
    random.Random(seed).shuffle(targets)
    print(f"{len(targets)} call paths, seed {seed}")

    passed, failed, unreached, tolerated = 0, 0, 0, 0
    for process, kind, path, name in targets:
        if args.seconds and time.time() - started > args.seconds:
            break
        outcome = run_once(args, f"{process}:{kind}:{path}")
        reached = any(line[0] == "FAILED" for line in call_lines(outcome))
        problem = judge(outcome, kind, name, expected_cases)
        if problem:
            failed += 1
            print(f"BAD {process}:{kind}:{path} {name}: {problem}\n"
                  f"    exit {outcome['code']}; stderr: {outcome['err'][-1500:]}", flush=True)
        else:
            passed += 1
            unreached += not reached
            tolerated += reached and outcome["code"] == 0
        shutil.rmtree(outcome["folder"], ignore_errors=True)
    tried = passed + failed
    print(f"{tried} of {len(targets)} paths tried in {time.time() - started:.0f} s; "
          f"{unreached} not reached again, {tolerated} did without the call")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
