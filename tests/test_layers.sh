#!/bin/sh
# The layering test, and the proof that it can fail: one violation of each kind is found.
set -eu
here=$(dirname "$0")
python3 "$here/layers.py" "$here/.."

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
expect() { # FILE LINE PART-OF-MESSAGE
    rm -rf "$tree/host" "$tree/include" "$tree/kernels"
    mkdir -p "$tree/$(dirname "$1")"
    printf '%s\n' "$2" >"$tree/$1"
    if python3 "$here/layers.py" "$tree" >"$tree/out"; then
        echo "not found in $1: $2"
        exit 1
    fi
    grep -q -- "$3" "$tree/out" || { cat "$tree/out"; exit 1; }
}
expect host/base/x.c '#include "clustermark/device.h"' 'floor 2, above'
expect host/comm/x.c '#include "host/device/cpu.h"' 'private to its folder'
expect host/cli/x.c '#include <mpi.h>' 'foreign API'
expect include/clustermark/device.h '#include <cuda_runtime_api.h>' 'foreign API'
expect include/clustermark/odd.h '' 'has no floor'
expect host/odd/x.c '' 'not in the design'
