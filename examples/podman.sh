#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# podman with a private hooks.d folder, which applies only to runs with --hooks-dir.
#   examples/podman.sh IMAGE | --rootfs DIR
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/models"
echo hello from the host >"$folder/models/word"

oci-bind-hook install --prefix "$folder" --hooks-dir "$folder/hooks.d" -- \
    --mount "src=$folder/models,dst=/models,ro" --root "$folder/state"

podman --hooks-dir "$folder/hooks.d" run --rm "$@" cat /models/word
