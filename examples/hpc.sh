#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The Slurm client and the site's MPI, for containers that request them: --annotation hpc=yes.
#   examples/hpc.sh [OPTION OF install]...
# Their folders on the host, and the folder in which the image's loader searches:
: "${SLURM:=/opt/slurm}" "${MPI:=/opt/mpi}" "${MUNGE:=/run/munge}" "${LIBRARIES:=/usr/lib/x86_64-linux-gnu}"
set -eu

# - Containers also start on nodes without Slurm or MPI (optional).
# - Each library is bound beside those of the image, and covers one of the same name: the loader takes the site's.
# - The host's MPI is bound only into images that have one to replace (when-exists).
exec oci-bind-hook install --annotation hpc=yes "$@" -- \
    --mount "src=$SLURM/etc,dst=/etc/slurm,ro,nosuid,nodev,optional" \
    --mount "type=glob,src=$SLURM/bin/s*,dst=/usr/bin,ro,nosuid,nodev,optional" \
    --mount "type=glob,src=$SLURM/lib/libslurm*.so*,dst=$LIBRARIES,ro,nosuid,nodev,optional" \
    --mount "src=$MUNGE,dst=/run/munge,nosuid,nodev,noexec,optional" \
    --mount "type=glob,src=$MPI/lib/libmpi*.so*,dst=$LIBRARIES,ro,nosuid,nodev,optional,when-exists=$LIBRARIES/libmpi.so"
