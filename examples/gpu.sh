#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Device nodes and the libraries of their driver, for containers that ask for them: --annotation gpu=yes.
#   examples/gpu.sh [OPTION OF install]...
# Where they are on the host, and where the image's programs look for the libraries:
: "${DEVICES:=/dev}" "${DRIVER:=/opt/gpu/lib}" "${LIBRARIES:=/usr/local/lib/gpu}"
set -eu

# The nodes appear in the container's own /dev. Whether it may open them is for its device cgroup to say, which is the
# engine's work: allow them there as well, as in linux.resources.devices of config.json.
# LD_LIBRARY_PATH, or a file in the image's /etc/ld.so.conf.d, has to name $LIBRARIES: ld.so.cache is not touched.
exec oci-bind-hook install --annotation gpu=yes "$@" -- \
    --mount "type=glob,src=$DEVICES/gpu*,dst=/dev,nosuid,noexec" \
    --mount "type=glob,src=$DRIVER/lib*.so*,dst=$LIBRARIES,ro,nosuid,nodev"
