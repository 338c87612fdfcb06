# Google Cloud, GPUDirect: to be sourced on every node or in every container,
#   . env-gcp.sh
# or by mpirun-hostfile.sh with CLUSTERMARK_ENV=env-gcp.sh.
#
# gIB (A3 Ultra, A4, A4X). Source: Google, AI Hypercomputer, "Run NCCL on Compute Engine instances" (last
# updated 2026-04-06): its script has all variables, and changes with its releases, so it is sourced
# and not repeated here; its libraries must be found first.
# TCPXO (A3 Mega). Source: GoogleCloudPlatform/container-engine-accelerators, gpudirect-tcpxo,
# nccl-test-latest.yaml at 089e022 (read 2026-11-26), for the folders; the profile beside the libraries
# is installed with them, and is sourced for the same reason.
# They are bash's: a plain sh may not take them.
# Not run by this project: no such machine was at hand; a test has scripts of its own in these places.

GIB_ROOT=${GIB_ROOT:-/usr/local/gib}
TCPXO_LIB=${TCPXO_LIB:-/usr/local/nvidia/lib64}
# Google's scripts name variables that may not be set.
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
if [ -r "$GIB_ROOT/scripts/set_nccl_env.sh" ]; then
    # NCCL and the network plugin of gIB come before any other.
    export LD_LIBRARY_PATH="$GIB_ROOT/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    # shellcheck source=/dev/null
    . "$GIB_ROOT/scripts/set_nccl_env.sh"
elif [ -r "$TCPXO_LIB/nccl-env-profile.sh" ]; then
    # The same of TCPXO.
    export LD_LIBRARY_PATH="$TCPXO_LIB${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    # How the plugin and its daemon on the host share GPU memory.
    export NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY="${NCCL_FASTRAK_LLCM_DEVICE_DIRECTORY:-/dev/aperture_devices}"
    # The profile asks where the libraries are.
    # shellcheck disable=SC2034
    NCCL_LIB_DIR=$TCPXO_LIB
    # shellcheck source=/dev/null
    . "$TCPXO_LIB/nccl-env-profile.sh"
else
    echo "env-gcp.sh: neither $GIB_ROOT/scripts/set_nccl_env.sh nor $TCPXO_LIB/nccl-env-profile.sh is here" >&2
    return 1
fi
unset GIB_ROOT TCPXO_LIB
