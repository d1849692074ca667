#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# podman of an ordinary user. The whole hook is below the user's own folders.
#   examples/rootless-podman.sh IMAGE | --rootfs DIR
set -eu
mkdir -p ~/models
echo hello from the host >~/models/word

# podman is root in a user namespace of its own and starts the runtime there, so createRuntime has the rights it needs.
# runc and crun without podman do not read hooks.d: "ROOTLESS" in the manual says how to register the hook for them.
oci-bind-hook install --prefix ~/.local -- --mount "src=$HOME/models,dst=/models,ro"

# For every run: hooks_dir = ["..."] below [engine] in ~/.config/containers/containers.conf.
podman --hooks-dir ~/.local/share/containers/oci/hooks.d run --rm "$@" cat /models/word
