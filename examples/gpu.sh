#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Device nodes and the libraries of their driver, for containers that request them: --annotation gpu=yes.
#   examples/gpu.sh [OPTION OF install]...
# Their folders on the host, and the folder in which the image's programs search for the libraries:
: "${DEVICES:=/dev}" "${DRIVER:=/opt/gpu/lib}" "${LIBRARIES:=/usr/local/lib/gpu}"
set -eu

# The nodes appear in the container's own /dev. The engine must also allow them in the device cgroup, for example in
# linux.resources.devices of config.json.
# LD_LIBRARY_PATH, or a file in the image's /etc/ld.so.conf.d, must name $LIBRARIES: the hook does not update ld.so.cache.
exec oci-bind-hook install --annotation gpu=yes "$@" -- \
    --mount "type=glob,src=$DEVICES/gpu*,dst=/dev,nosuid,noexec" \
    --mount "type=glob,src=$DRIVER/lib*.so*,dst=$LIBRARIES,ro,nosuid,nodev"
