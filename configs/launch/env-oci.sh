# Oracle Cloud, bare metal with RoCE: to be sourced on every node,
#   OCI_SHAPE=BM.GPU.H100.8; . env-oci.sh
# or by mpirun-hostfile.sh with CLUSTERMARK_ENV=env-oci.sh. Shapes: BM.GPU.H100.8, BM.GPU.H200.8.
#
# Source: Oracle, oracle-quickstart/oci-hpc, samples/gpu/nccl_run_allreduce_H100_200.sh at 6cc1d8c (read
# 2026-11-26). Left out of it: NCCL_CUMEM_ENABLE=0, without which this program can let NCCL have its
# buffers beforehand; and what is neither NCCL's, UCX's nor Open MPI's.
# Not run by this project: no such machine was at hand.

# Which NICs are of the cluster's network; the others lead elsewhere. "=" takes the names as they are.
case ${OCI_SHAPE:-} in
BM.GPU.H100.8)
    NCCL_IB_HCA="=mlx5_0,mlx5_1,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_7,mlx5_8,mlx5_9,mlx5_10,mlx5_12,mlx5_13,mlx5_14,mlx5_15,mlx5_16,mlx5_17"
    ;;
BM.GPU.H200.8)
    NCCL_IB_HCA="=mlx5_0,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_9,mlx5_10,mlx5_11"
    ;;
*)
    echo "env-oci.sh: OCI_SHAPE is \"${OCI_SHAPE:-}\"; it must be BM.GPU.H100.8 or BM.GPU.H200.8" >&2
    return 1
    ;;
esac
export NCCL_IB_HCA

# RoCE version 2 has its addresses at this place of a NIC's table.
export NCCL_IB_GID_INDEX=3
# The traffic class for which the switches keep a lossless queue.
export NCCL_IB_TC=41
# The service level, of InfiniBand's; RoCE has one.
export NCCL_IB_SL=0
# How long a NIC waits before it sends again: 4 us times 2 to this power, 17 s.
export NCCL_IB_TIMEOUT=22
# One connection between two NICs ...
export NCCL_IB_QPS_PER_CONNECTION=1
# ... and no message spread over several.
export NCCL_IB_SPLIT_DATA_ON_QPS=0
# NCCL's threads may use all cores that its process has, not those near its GPU alone.
export NCCL_IGNORE_CPU_AFFINITY=1
# Processes find each other by Ethernet ...
export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-eth0}"
# ... and so do MPI's, which carries no data here.
export UCX_TLS=tcp
# ... by the same interface.
export UCX_NET_DEVICES="${UCX_NET_DEVICES:-eth0}"
# MPI's own collectives, not those of a library that wants InfiniBand.
export OMPI_MCA_coll=^hcoll
