#!/bin/bash
# clustermark on the machines of a host file, by Open MPI's mpirun:
#
#   mpirun-hostfile.sh HOSTFILE RANKS-PER-HOST [SUITE] [OPTION ...]
#
# What follows are words of `clustermark run`. CLUSTERMARK names the program, which must be at the same
# place on every machine; CLUSTERMARK_ENV a file such as env-aws-efa.sh, whose variables all ranks get;
# CLUSTERMARK_MPIRUN has more words for mpirun, as "--mca btl_tcp_if_include eth0".
set -eu

if [ $# -lt 2 ] || [ ! -r "$1" ]; then
    echo "usage: mpirun-hostfile.sh HOSTFILE RANKS-PER-HOST [SUITE] [OPTION ...]" >&2
    exit 64
fi
hosts=$1 per_host=$2
shift 2

# A provider's variables. Without a slash the shell would look for the file along PATH.
if [ -n "${CLUSTERMARK_ENV:-}" ]; then
    case $CLUSTERMARK_ENV in
    */*) file=$CLUSTERMARK_ENV ;;
    *) file=$(dirname "$0")/$CLUSTERMARK_ENV ;;
    esac
    # shellcheck disable=SC1090
    . "$file" || exit 64
fi

# Machines are lines that are neither empty nor comments.
count=$(grep -c '^[[:space:]]*[^#[:space:]]' "$hosts") || {
    echo "mpirun-hostfile.sh: no machine in $hosts" >&2
    exit 64
}

# ssh passes no environment on, and mpirun only what is named, but for its own OMPI_MCA_*: all that
# steers the measured libraries, which is also what the result records, and where libraries are.
pass=
for name in $(env | sed -n 's/^\(NCCL_[A-Z0-9_]*\|CUDA_[A-Z0-9_]*\|OMP_[A-Z0-9_]*\|FI_[A-Z0-9_]*\|UCX_[A-Z0-9_]*\|LD_LIBRARY_PATH\)=.*/\1/p'); do
    pass="$pass -x $name"
done

# So many ranks on each machine, counted machine by machine, so that neighbours in number share one;
# and not bound: each rank binds itself to the cores beside its GPU.
# shellcheck disable=SC2086
exec mpirun --hostfile "$hosts" -np $((count * per_host)) --map-by "ppr:$per_host:node" \
    --bind-to none $pass ${CLUSTERMARK_MPIRUN:-} "${CLUSTERMARK:-clustermark}" run "$@"
