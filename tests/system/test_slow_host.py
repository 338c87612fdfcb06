#!/usr/bin/env python3
"""A slow host among four: is it named, and nobody where none is slow?

    test_slow_host.py PROGRAM [CONFIGS] [ROUNDS]

Four pretend hosts (netns.py), a rank on each. All links are limited to the same low rate, so that a
transfer takes far longer than the ranks wait for a core; of one of them, another in each round, to a
tenth of that. Without ROUNDS one of each is run.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

import netns

FULL, TENTH = "20mbit", "2mbit"
BURST = "16kb"
SUITE = """[global]
runs = 1
warmup_time = 0s
min_time = 100ms
max_time = 300ms
min_iterations = 3
max_iterations = 12
[pairs]
workload = pairs
size = 64KiB
rotate = no
"""


def measure(hosts, program, folder):
    suite, result = os.path.join(folder, "slow.ini"), os.path.join(folder, "slow.json")
    with open(suite, "w", encoding="utf-8") as file:
        file.write(SUITE)
    command = hosts.mpirun([program, "run", suite, "--show-hosts", "-o", result])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=240,
                          errors="replace")  # mpirun mixes the streams within a character
    if done.returncode != 0:
        raise AssertionError(f"exit code {done.returncode}:\n{done.stdout}")
    with open(result, encoding="utf-8") as file:
        return done.stdout, json.load(file)


def check_named(text, result, slow):
    suspects = result["suspects"]
    if not suspects or suspects[0]["host"] != f"h{slow}":
        raise AssertionError(f"h{slow} is not named first: {suspects}\n{text}")
    first = suspects[0]
    others = [entry["host"] for entry in suspects[1:]]
    assert not others, f"named besides h{slow}: {others}\n{text}"
    assert first["ranks"] == [slow] and -0.95 < first["effect"] < -0.3, first
    assert first["low"] <= first["effect"] <= first["high"], first
    assert -0.95 < first["retest"] < -0.3 and first["partners"], first
    assert f"1. host h{slow} (rank {slow})" in text, text


def main():
    program = os.path.abspath(sys.argv[1])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    reason = netns.why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return 77
    failed = 0
    with netns.Hosts(4) as hosts, tempfile.TemporaryDirectory(prefix="cm-slow-") as folder:
        for number in range(rounds):
            slow = (number + 2) % 4
            for limited in (False, True):
                for host in range(4):
                    hosts.limit(host, TENTH if limited and host == slow else FULL, BURST)
                began = time.monotonic()
                try:
                    text, result = measure(hosts, program, folder)
                    if limited:
                        check_named(text, result, slow)
                        said = f"h{slow} named, {result['suspects'][0]['effect']:.3f}"
                    else:
                        assert not result["suspects"], f"{result['suspects']}\n{text}"
                        said = "nobody named"
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    failed += 1
                    said = f"FAILED: {error}"
                    hosts.kill()
                limit = f"h{slow} at a tenth" if limited else "all alike"
                print(f"round {number}, {limit}: {said} ({time.monotonic() - began:.0f} s)",
                      flush=True)
    print(f"{2 * rounds - failed} of {2 * rounds} right")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
