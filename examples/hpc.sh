#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Slurm client and the site's MPI, for containers that ask for them: --annotation hpc=yes.
#   examples/hpc.sh [OPTION OF install]...
# Where they are on the host, and where the loader of the image looks:
: "${SLURM:=/opt/slurm}" "${MPI:=/opt/mpi}" "${MUNGE:=/run/munge}" "${LIBRARIES:=/usr/lib/x86_64-linux-gnu}"
set -eu

# - Nodes without Slurm or MPI are none the worse for it (optional).
# - Each library is bound beside those of the image, over one of the same name: so it is the site's that is loaded.
# - The host's MPI goes only where the image has one to replace (when-exists); others keep what they are.
exec oci-bind-hook install --annotation hpc=yes "$@" -- \
    --mount "src=$SLURM/etc,dst=/etc/slurm,ro,nosuid,nodev,optional" \
    --mount "type=glob,src=$SLURM/bin/s*,dst=/usr/bin,ro,nosuid,nodev,optional" \
    --mount "type=glob,src=$SLURM/lib/libslurm*.so*,dst=$LIBRARIES,ro,nosuid,nodev,optional" \
    --mount "src=$MUNGE,dst=/run/munge,nosuid,nodev,noexec,optional" \
    --mount "type=glob,src=$MPI/lib/libmpi*.so*,dst=$LIBRARIES,ro,nosuid,nodev,optional,when-exists=$LIBRARIES/libmpi.so"
