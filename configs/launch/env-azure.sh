# Azure, ND H100 v5 and ND H200 v5 (InfiniBand): to be sourced on every node,
#   . env-azure.sh
# or by mpirun-hostfile.sh with CLUSTERMARK_ENV=env-azure.sh.
#
# Source: Microsoft, Azure/MS-AMP-Examples, gpt3/README.md, "Multi-node training" (read 2026-11-26),
# which names these variables for ND H100 v5.
# Not run by this project: no such machine was at hand.

# What is connected to what: the virtual machine hides PCIe, so NCCL is told by a file that Azure's HPC
# images bring. Without it NICs far from a GPU would be taken for near ones. A container must have the
# folder mounted. AZURE_TOPOLOGY names another file, as for ND A100 v4 (ndv4-topo.xml).
NCCL_TOPO_FILE=${AZURE_TOPOLOGY:-/opt/microsoft/ndv5-topo.xml}
if [ ! -r "$NCCL_TOPO_FILE" ]; then
    echo "env-azure.sh: no $NCCL_TOPO_FILE: name the image's topology file by AZURE_TOPOLOGY" >&2
    unset NCCL_TOPO_FILE
    return 1
fi
export NCCL_TOPO_FILE

# GPUs by their place on the bus, as in that file, and not by their speed.
export CUDA_DEVICE_ORDER=PCI_BUS_ID

# Writes over PCIe may pass each other, which virtual machines need for full bandwidth.
export NCCL_IB_PCI_RELAXED_ORDERING=1

# GPUs and NICs speak directly whatever is between them (5 stands for SYS in NCCL's old numbers).
export NCCL_NET_GDR_LEVEL=5

# Processes find each other by Ethernet; data goes over InfiniBand.
export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-eth0}"
