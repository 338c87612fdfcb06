#!/usr/bin/env python3
"""Holds the source tree against its layering. Usage: layers.py [TREE]

An include points downward only; siblings on a floor meet through include/clustermark/; a foreign API
is included by one file or folder; a header is in include/clustermark/ only when two folders use it.
Prints each violation as file:line and exits 1, or prints a count and exits 0.
"""
import os
import re
import sys

FOLDER_FLOORS = {
    "host/base": 0, "host/stats": 1, "host/model": 1, "host/device": 2, "host/comm": 2,
    "host/topology": 2, "kernels": 2, "kernels/cpu": 2, "host/workload": 3, "host/measure": 3,
    "host/result": 4, "host/project": 4, "host/cli": 5,
}
HEADER_FLOORS = {
    "status": 0, "error": 0, "memory": 0, "strbuf": 0, "dtype": 0, "units": 0, "option": 0,
    "suite": 0, "json": 0, "file": 0, "hash": 0, "module": 0, "configs": 0, "version": 0, "stats": 1, "model": 1, "product": 1,
    "pairs": 1,
    "blocks": 1,
    "ops": 1, "transformer": 1, "parallel": 1, "schedule": 1, "virtual_clock": 1, "roofline": 1,
    "cost": 1, "goodput": 1, "energy_cost": 1,
    "simd": 2, "team": 2,
    "deadline": 2, "device": 2, "kernels": 2, "train_kernels": 2, "comm": 2, "cuda_kernels": 2,
    "cuda_train": 2,
    "topology": 2, "cluster": 2, "workload": 3, "measure": 3, "result": 4, "publish": 4, "compare": 4, "project": 4,
}
# Foreign header (as a pattern) : the files that may include it.
FOREIGN = [
    (r"^(cuda|cublas|curand|cudnn)", r"^(host/device/cuda\w*\.[ch]|kernels/\w+\.cuh?)$"),
    (r"^nccl", r"^host/comm/nccl\w*\.[ch]$"),
    (r"^nvml", r"^$"),
    (r"^mpi\.h", r"^host/comm/mpi\w*\.[ch]$"),
    (r"^hwloc", r"^host/topology/hwloc\w*\.[ch]$"),
    (r"^(dnnl|oneapi/)", r"^host/device/onednn\.c$"),
    (r"^ini\.h", r"^host/base/suite\.c$"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]')


def sources(tree):
    for top in ("include", "host", "kernels"):
        for folder, _, names in os.walk(os.path.join(tree, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cu", ".cuh")):
                    yield os.path.relpath(os.path.join(folder, name), tree)


def header_of(include):
    match = re.match(r"clustermark/(\w+)\.h$", include)
    return match.group(1) if match else None


def check_include(path, folder, floor, include):
    header = header_of(include)
    if header is not None:
        if header not in HEADER_FLOORS:
            return f"'{include}' has no floor; add it to tests/layers.py"
        if HEADER_FLOORS[header] > floor:
            return f"'{include}' is on floor {HEADER_FLOORS[header]}, above this file's {floor}"
        return None
    if include.startswith(("host/", "kernels/")):
        if os.path.dirname(include) != folder:
            return f"'{include}' is private to its folder; share it through include/clustermark/"
        return None
    for pattern, owner in FOREIGN:
        if re.match(pattern, include) and not re.match(owner, path):
            return f"'{include}' is a foreign API that this file does not own"
    return None


def main():
    tree = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..")
    violations, files, users = [], 0, {}
    for path in sources(tree):
        files += 1
        folder = os.path.dirname(path)
        if folder == "include/clustermark":
            name = os.path.basename(path)[:-2]
            floor = HEADER_FLOORS.get(name)
            if floor is None:
                violations.append(f"{path}:1: has no floor; add it to tests/layers.py")
                continue
        elif folder in FOLDER_FLOORS:
            floor = FOLDER_FLOORS[folder]
        else:
            violations.append(f"{path}:1: folder '{folder}' is not in the design")
            continue
        with open(os.path.join(tree, path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                problem = check_include(path, folder, floor, match.group(1))
                if problem:
                    violations.append(f"{path}:{number}: {problem}")
                header = header_of(match.group(1))
                if header and folder != "include/clustermark":
                    users.setdefault(header, set()).add(folder)
    for header in sorted(HEADER_FLOORS):
        folders = users.get(header, set())
        if files > 20 and len(folders) < 2:
            violations.append(f"include/clustermark/{header}.h:1: used by {len(folders)} folder(s); "
                              "a header is shared by two or lies beside its user")
    for violation in violations:
        print(violation)
    if files == 0:
        print(f"{tree}: no sources")
        return 1
    if not violations:
        print(f"{files} files, no upward include")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
