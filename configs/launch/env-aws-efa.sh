# AWS, instances with EFA (p4d, p4de, p5, p5en, p6): to be sourced on every node,
#   . env-aws-efa.sh
# or by mpirun-hostfile.sh with CLUSTERMARK_ENV=env-aws-efa.sh.
#
# Source: AWS, awsome-distributed-training, 1.architectures/efa-cheatsheet.md at 0610db0 (read
# 2026-11-26), for libfabric 1.18 and aws-ofi-nccl 1.7 or later. It wants little, and says what not to
# set: FI_EFA_USE_DEVICE_RDMA, FI_EFA_FORK_SAFE, NCCL_PROTO and FI_PROVIDER were for older ones,
# NCCL_BUFFSIZE and the number of channels are best left alone, RDMAV_* does harm.
# Not run by this project: no such instance was at hand.

# Where the EFA installer puts libfabric and the plugin that takes NCCL to it; without them NCCL would
# go over TCP and be slow without a word. EFA_ROOT is for an installation elsewhere.
EFA_ROOT=${EFA_ROOT:-/opt/amazon}
if [ ! -d "$EFA_ROOT/efa/lib" ]; then
    echo "env-aws-efa.sh: no $EFA_ROOT/efa/lib: is the EFA installer's software here?" >&2
    return 1
fi
# On Debian and Ubuntu the plugin lies in a folder named for the architecture.
for folder in "$EFA_ROOT/efa/lib" "$EFA_ROOT/ofi-nccl/lib" "$EFA_ROOT"/ofi-nccl/lib/*-linux-gnu; do
    if [ -d "$folder" ]; then
        export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
done
unset folder EFA_ROOT

# By which interfaces NCCL's processes find each other: those whose names begin with en, which covers
# p4d and p5; look with `ip link` on others.
export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-en}"

# Huge pages of libfabric: off, as in the cheat sheet's preset. A process that forks while they are in
# use may get no memory; the cost is said to be small.
export FI_EFA_USE_HUGE_PAGE=0
