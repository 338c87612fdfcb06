#!/usr/bin/env python3
"""Fails each call of the program in turn and looks at how it takes it.

    torture.py PROGRAM SUITE [--device D] [--ranks N] [--seconds S] [--seed K] [--jobs J] [--only PROCESS:KIND]
               [--case PATTERN] [--list] [--repeat CM_FAIL --case UNIT]

PROGRAM is the program linked with tests/torture/fail.c. A clean run of each unit (a case, a section,
the suite) collects the call paths of every process: allocation, file, thread and MPI calls. Each
path belongs to the first unit that has it; there its first call is made to fail in a run of its own.
One in 64 fails in a run of the whole suite instead, which has to get over it. Without
--seconds every path is tried; with it, a draw from the sections until the time is over.

A run is bad when

  - it hangs, is killed by a signal, or a sanitizer finds something (a leak included);
  - it ends with 0 although the result is not whole;
  - it fails without a message, with one that does not name the failure, or with output that is
    no message of the program;
  - the result file does not read, or lacks a case that was finished;
  - a rank's failure costs more than the case at hand, or another rank is blamed;
  - a process, a temporary file or a memory segment is left behind.

All hangs on pretend GPUs take some ten minutes: --kind hang --set *.timeout=5s.

Prints each bad run with the line that repeats it, and the sums last.
"""
import argparse
import concurrent.futures
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

LIMIT_S = 180  # more than every deadline of the program
NOT_ON_CPU = {"hostlink", "p2p"}  # the host is no device of its own: these alone may be skipped
ATTEMPTS = 3   # for a path that a run of the same unit did not take again
WHOLE_ONE_IN = 64
EXIT_CODES = {0, 5, 64, 70, 77}
# Short, as nothing here depends on figures.
QUICK = ["*.warmup_time=0", "*.warmup_iterations=1", "*.min_time=0", "*.max_time=1ms",
         "*.min_iterations=3"]
# What a message says when it names a failed call of the kind; the call's own name always counts.
WORDS = {
    "alloc": ["memory", "bytes left"],
    "file": ["Input/output error", "No space left", "Permission denied", "Too many open files",
             "Connection refused", "Cannot allocate memory", "Resource temporarily",
             "Operation not permitted", "Invalid argument", "Function not implemented",
             "Bad file descriptor", "No buffer space", "File name too long",
             "cannot open shared object file"],
    "thread": ["thread", "Resource temporarily", "mutex", "condition variable"],
    "mpi": ["MPI_"],
    "gpu": ["cm_cuda_", "cm_own_gemm", "queued work: ", "a product that was tried",
            "cudaSetDevice and first use"],
    "hang": ["not done", "no sign of life", "did not", "within"],
}
# Modules in the order in which the program opens them.
MODULES = {"cpu": ["clustermark-mpi.so"], "fake": ["clustermark-fake.so", "clustermark-nccl.so"]}


def environment(folder, fail):
    here = os.path.dirname(os.path.abspath(__file__))
    env = dict(os.environ)
    env.update({
        "TMPDIR": os.path.join(folder, "tmp"),
        "ASAN_OPTIONS": f"log_path={folder}/sanitizer:exitcode=99:detect_leaks=1:"
                        "allocator_may_return_null=1:quarantine_size_mb=8",
        "LSAN_OPTIONS": f"suppressions={here}/../lsan.supp:print_suppressions=0",
        "UBSAN_OPTIONS": f"print_stacktrace=1:halt_on_error=1:log_path={folder}/sanitizer",
        "OMPI_MCA_orte_tmpdir_base": os.path.join(folder, "mpi"),
        "OMPI_MCA_btl_vader_backing_directory": os.path.join(folder, "segments"),
        # Neither is of any use here, and each takes longer than the rest of a run.
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "HWLOC_COMPONENTS": "-pci,-opencl,-gl",
        "CM_FAIL_LOG": folder,
        "FAKE_LOG": os.path.join(folder, "left"),
        "FAKE_NCCL_MISMATCH": "hang",  # a rank that failed leaves out what the others do
    })
    if fail:
        env["CM_FAIL"] = fail
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


def read_text(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def functions(args, frames):
    """The names of the functions at these offsets; those of modules begin with M."""
    names = {}
    for number, name in enumerate([""] + MODULES[args.device]):
        path = os.path.join(os.path.dirname(args.program), name) if name else args.program
        own = [frame for frame in frames if module_of(frame) == number]
        if own:
            offsets = [hex(int(frame.lstrip("M"), 16) % (1 << 40)) for frame in own]
            answer = subprocess.run(["addr2line", "-f", "-s", "-e", path, *offsets],
                                    capture_output=True, text=True, check=False).stdout.split("\n")
            names.update(zip(own, answer[::2]))
    return " < ".join(names.get(frame, "?") for frame in frames)


def module_of(frame):
    return 1 + (int(frame[1:], 16) >> 40) if frame[0] == "M" else 0


class Run:
    """One run of the program, `fail` being its CM_FAIL, and what is left of it."""

    def __init__(self, args, unit, fail):
        folder = tempfile.mkdtemp(prefix="torture-")
        for name in ("tmp", "mpi", "segments"):
            os.mkdir(os.path.join(folder, name))
        command = [args.program, "run", args.suite, "--device", args.device, "--ranks", str(args.ranks),
                   "--runs", "1", "-o", os.path.join(folder, "result.json")]
        if unit:
            command += ["--only", unit]
        os.environ["FAKE_GPUS"] = str(args.ranks)
        for setting in QUICK + args.set:
            command += ["--set", setting]
        started = time.time()
        self.execute(command, folder, fail)
        self.seconds = time.time() - started
        self.left = self.wait_for_end(folder)
        self.files = []
        for place in ("tmp", "segments"):
            self.files += sorted(os.listdir(os.path.join(folder, place)))
        self.files += [name for name in os.listdir(folder)
                       if name.startswith("result.json") and name != "result.json"]
        self.sanitizer = "".join(read_text(os.path.join(folder, name))
                                 for name in sorted(os.listdir(folder))
                                 if name.startswith("sanitizer"))
        self.alive = read_text(os.path.join(folder, "left"))
        self.calls, self.added, self.reached = [], set(), False
        self.frames = []
        for line in read_text(os.path.join(folder, "calls")).splitlines():
            words = line.split()
            if words[0] == "FAILED":
                self.reached = True
            elif words[0] == "AT":
                self.frames = words[1:]
            elif words[0] == "ADDED":
                if words[1] == "ok":
                    self.added.add(line.split(" ", 2)[2])
            elif len(words) >= 5:
                self.calls.append((words[0], words[1], words[2], " ".join(words[4:])))
        self.result, self.broken = None, ""
        text = read_text(os.path.join(folder, "result.json"))
        self.result_path = os.path.join(folder, "result.json")
        if os.path.exists(self.result_path):
            try:
                self.result = json.loads(text)
            except ValueError as error:
                self.broken = str(error)
        shutil.rmtree(folder, ignore_errors=True)

    def execute(self, command, folder, fail):
        self.hung = False
        process = subprocess.Popen(command, env=environment(folder, fail), cwd=folder,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.hung = True
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        self.code = process.returncode
        self.out = out.decode(errors="replace")
        self.err = err.decode(errors="replace")

    @staticmethod
    def wait_for_end(folder):
        deadline = time.time() + 10
        left = processes_of(folder)
        while left and time.time() < deadline:
            time.sleep(0.1)
            left = processes_of(folder)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        return left

    def cases(self):
        return (self.result or {}).get("cases", [])

    def reasons(self):
        return [case.get("reason") or "" for case in self.cases() if case["status"] != "ok"]


def judge(run, process, kind, name, expected):
    """What is wrong with a run in which one call failed; "" when nothing is."""
    if run.hung:
        return f"hung for {LIMIT_S} s"
    # A stream that does not say that it is done is given up with what it uses.
    given_up = name == "cudaStreamQuery" or kind == "hang"
    if run.sanitizer and not (given_up and "LeakSanitizer" in run.sanitizer):
        return "sanitizer: " + run.sanitizer[:3000]
    if run.code not in EXIT_CODES and not (run.code == 99 and given_up):
        return f"exit code {run.code}"
    if run.left:
        return f"{len(run.left)} processes left behind"
    # Open MPI has its segments removed a moment after it made them. A supervisor that cannot go on
    # kills the ranks wherever they are, in that moment too.
    files = [name for name in run.files if process != "main" or not name.startswith("vader_segment.")]
    if files:
        return f"files left behind: {files}"
    if run.alive and not given_up:
        return f"objects of the GPU left behind: {run.alive}"
    if run.broken:
        return f"the result file does not read: {run.broken}"
    for line in run.err.splitlines():
        if line and not line.startswith("clustermark: ") and line != run.result_path:
            return f"a line that is no message: {line}"
    return judge_result(run, process, kind, name, expected)


def judge_result(run, process, kind, name, expected):
    fine = {case["name"] for case in run.cases() if case["status"] == "ok"}
    if run.added - fine:
        return f"finished, and lost: {sorted(run.added - fine)}"
    if run.code == 0:
        return "" if fine == expected else f"exit 0 without {sorted(expected - fine)}"
    text = run.err + "\n".join(run.reasons())
    if not text.strip():
        return "failed without a message"
    if name not in text and not any(word in text for word in WORDS[kind]):
        return f"no message names {name}"
    if process == "main":
        return ""
    bad = [case for case in run.cases() if case["status"] != "ok" and case["name"] in expected]
    if not {case["name"] for case in run.cases()} >= expected or len(bad) != 1:
        return f"a rank's failure, and {len(fine)} of {len(expected)} cases are fine"
    ranks = re.findall(r"\branks? (\d+)", bad[0]["reason"])
    if kind == "hang":  # who waits for the hung rank cannot know that it is not its own device
        waiting = re.findall(r"\branks? (\d+(?:, \d+)*)", bad[0]["reason"])
        found = waiting and process[4:] in waiting[0].split(", ")
        return "" if found else f"the wrong rank is blamed: {bad[0]['reason']}"
    callers = re.findall(r"\(rank (\d+), ", bad[0]["reason"])
    if set(ranks[:1] + callers) - {process[4:]}:
        return f"the wrong rank is blamed: {bad[0]['reason']}"
    alone = run.result["ranks"] == 1  # then nobody asks which
    if not ranks and not alone and not bad[0]["reason"].startswith("metrics: "):
        return f"no rank is named: {bad[0]['reason']}"
    return ""


class Sweep:
    def __init__(self, args):
        self.args = args
        self.started = time.time()
        self.seen = set()
        self.expected = {}
        self.lock = threading.Lock()
        self.passed = self.failed = self.tolerated = 0
        self.unreached = []
        self.slow = []

    def left_s(self):
        return self.args.seconds - (time.time() - self.started) if self.args.seconds else 1e9

    def clean(self, unit):
        """A run in which nothing fails; None where nothing of the unit is possible here."""
        run = Run(self.args, unit, None)
        left_out = {case["name"] for case in run.cases() if case["status"] == "skipped" and
                    (self.args.ranks == 1 or
                     (self.args.device == "cpu" and case["workload"] in NOT_ON_CPU))}
        expected = {case["name"] for case in run.cases()} - left_out
        if unit and left_out and not expected:
            return None
        problem = judge(run, "main", "alloc", "", expected)
        if problem or run.code != 0 or not run.cases() or not run.calls:
            sys.exit(f"the clean run of {unit or 'the suite'} failed: exit {run.code} {problem}\n"
                     f"{run.err}\n{run.reasons()}")
        self.expected[unit] = expected
        return run

    def new_targets(self, unit, run):
        """The call paths of a clean run that no unit had before."""
        targets = []
        for process, kind, path, name in run.calls:
            if (process, kind, path) in self.seen:
                continue
            self.seen.add((process, kind, path))
            if f"{process}:{kind}".startswith(self.args.only) and self.args.kind in ("", kind):
                targets.append((unit, process, kind, path, name))
        return targets

    def attempt(self, target):
        unit, process, kind, path, name = target
        for _ in range(ATTEMPTS):
            if self.left_s() <= 0:
                return
            run = Run(self.args, unit, f"{process}:{kind}:{path}")
            if run.reached:
                break
        problem = judge(run, process, kind, name, self.expected[unit])
        with self.lock:
            if run.seconds > 30:
                self.slow.append(f"{run.seconds:.0f} s: {process}:{kind}:{path} {name} in {unit}")
            if problem:
                self.failed += 1
                reasons = "\n            ".join(run.reasons())
                print(f"BAD --repeat {process}:{kind}:{path} --case '{unit}'  {name}: {problem}\n"
                      f"    {functions(self.args, run.frames)}\n"
                      f"    exit {run.code}; {run.seconds:.1f} s; stderr: {run.err[-1500:]}\n"
                      f"    reasons: {reasons}", flush=True)
            elif not run.reached:
                self.unreached.append(f"{process}:{kind}:{path} {name} in {unit}")
            else:
                self.passed += 1
                self.tolerated += run.code == 0
                if self.args.verbose:
                    said = run.reasons() or run.err.strip().splitlines()[-2:]
                    where = functions(self.args, run.frames) if run.code == 0 else ""
                    print(f"{run.code} {process}:{kind}:{path} {name}: {' | '.join(said)} @ "
                          f"{where}", flush=True)

    def try_all(self, targets):
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(self.attempt, targets))

    def summary(self, total):
        for line in self.slow:
            print(f"slow: {line}")
        for line in self.unreached:
            print(f"not reached again: {line}")
        print(f"{self.passed + self.failed + len(self.unreached)} of {total} call paths tried in "
              f"{time.time() - self.started:.0f} s: {len(self.unreached)} not reached again, "
              f"{self.tolerated} did without the call")
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or self.passed == 0 else 0


def sections_of(suite):
    with open(suite) as file:
        names = re.findall(r"^\[(.+)\]", file.read(), re.M)
    return [name for name in names if name != "global"]


def sweep_all(sweep, chooser):
    """Every path of every unit; the smallest units come first."""
    args = sweep.args
    if args.case:
        units = [args.case]
    else:
        cases = sweep.clean("").cases()
        units = [case["name"] for case in cases] + sections_of(args.suite) + [""]
        units = list(dict.fromkeys(units))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(sweep.clean, units))
    targets = []
    for unit, run in zip(units, runs):
        targets += sweep.new_targets(unit, run) if run else []
    if not args.case:
        targets = [("", *row[1:]) if chooser.randrange(WHOLE_ONE_IN) == 0 else row
                   for row in targets]
    chooser.shuffle(targets)
    print(f"{len(targets)} call paths of {len(units)} units", flush=True)
    for process in sorted({row[1] for row in targets}):
        kinds = [row[2] for row in targets if row[1] == process]
        print(f"  {process}: " + ", ".join(f"{kinds.count(kind)} {kind}" for kind in WORDS))
    if not args.list:
        sweep.try_all(targets)
    return len(targets)


def draw_some(sweep, chooser):
    """From each section a share of the time; in an order of its own every time."""
    units = [sweep.args.case] if sweep.args.case else sections_of(sweep.args.suite)
    chooser.shuffle(units)
    total = 0
    whole = sweep.args.seconds
    for number, unit in enumerate(units):
        if sweep.left_s() < 0.1 * whole:
            break
        run = sweep.clean(unit)
        targets = sweep.new_targets(unit, run) if run else []
        if number == 0:  # the clean run may take long on a busy machine
            sweep.started = time.time()
        total += len(targets)
        chooser.shuffle(targets)
        sweep.args.seconds = whole * (number + 1) / min(len(units), 3)
        sweep.args.seconds = min(whole, sweep.args.seconds)
        sweep.try_all(targets)
        sweep.args.seconds = whole
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("suite")
    parser.add_argument("--device", default="cpu", choices=sorted(MODULES))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=0, help="at a time; by default 24 of those that "
                        "hang, which only wait, and 2 of others")
    parser.add_argument("--only", default="", help="PROCESS or PROCESS:KIND")
    parser.add_argument("--kind", default="", choices=[""] + list(WORDS))
    parser.add_argument("--case", default="", help="this unit alone")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--list", action="store_true", help="only count the paths")
    parser.add_argument("--verbose", action="store_true", help="also what good runs said")
    parser.add_argument("--repeat", default="", help="the CM_FAIL of one bad run")
    args = parser.parse_args()
    args.jobs = args.jobs or (24 if args.kind == "hang" else 2)
    args.program, args.suite = os.path.abspath(args.program), os.path.abspath(args.suite)
    seed = args.seed if args.seed is not None else int(time.time()) % 100000
    chooser = random.Random(seed)
    sweep = Sweep(args)
    print(f"seed {seed}", flush=True)
    if args.repeat:
        targets = sweep.new_targets(args.case, sweep.clean(args.case))
        wanted = tuple(args.repeat.split(":"))
        sweep.try_all([row for row in targets if row[1:4] == wanted])
        return sweep.summary(1)
    total = draw_some(sweep, chooser) if args.seconds else sweep_all(sweep, chooser)
    return 0 if args.list else sweep.summary(total)


if __name__ == "__main__":
    sys.exit(main())
