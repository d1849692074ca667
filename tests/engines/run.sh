#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The hook under real engines, those of a Debian suite; called by
#   tests/run --engines [SUITE] [--root-only | -- PYTEST-ARGUMENT...]
# SUITE is bookworm if it is not said. Nothing is installed here: the engines are in a root file system, one gigabyte,
# that is made once, in .engines/SUITE. They run in it, in namespaces that take with them all that they leave. With
# --root-only it is made, if it is not there, and no test is run. What the tests say of each engine is put into
# docs/ENGINES.md by WRITE=yes, and else compared with it. To be rid of the roots, or have them made anew:
#   rm -r .engines
set -euo pipefail

me=tests/run
# shellcheck source=tests/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
# shellcheck source=tests/root.sh
. "$project/tests/root.sh"

engines=(busybox-static containerd crun docker.io mount podman python3-prctl python3-venv runc runsc uidmap util-linux)
modules=(grpcio hypothesis "jsonschema>=4.18" "pytest>=8" pyyaml)

# What is run in the root: its Python's modules.
prepare() {
    python3 -m venv --system-site-packages "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "${modules[@]}"
    echo "$project/hook" >"$(echo "$venv"/lib/python3*/site-packages)/project.pth"
}

# And the tests. Overlays are on a tmpfs, since they cannot be on another overlay; it ends with the namespace. So does
# what some write where the second version of cgroups was mounted, which is hidden from them.
tests() {
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    for folder in /etc/containerd /etc/docker; do
        mkdir -p "$folder"
        mount -t tmpfs tmpfs "$folder"
    done
    # What is installed on the node by a pod, which sees all of it.
    mkdir /tmp/over /tmp/over/new /tmp/over/work /etc/cdi -p
    mount -t overlay -o lowerdir=/usr,upperdir=/tmp/over/new,workdir=/tmp/over/work overlay /usr
    for folder in /etc/cdi /opt /srv; do
        mount -t tmpfs tmpfs "$folder"
    done
    [ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs tmpfs /sys/fs/cgroup/unified
    cd "$project"
    exec "$venv/bin/python" -m pytest -p no:cacheprovider tests/engines "$@"
}

case ${1-} in
    enter | prepare | tests) "$@"; exit ;;
esac

suite=bookworm
if [[ ${1-} =~ ^[a-z]+$ ]]; then
    suite=$1
    shift
fi
[[ ${1---} = -- || "$*" = --root-only ]] || die "usage: tests/run --engines [SUITE] [--root-only | -- PYTEST-ARGUMENT...]"
[ "$(id -u)" = 0 ] || die "containers need root"

# Since Debian 13 its client is in a package of its own.
[ "$suite" = bookworm ] || engines+=(docker-cli)
root=$project/.engines/$suite
mkdir -p "$project/.engines"
exec 9>"$root.lock"
flock 9
if [ ! -d "$root" ]; then
    # Under another name until it is whole.
    [ -d "$root.base" ] || make_root "$root.base" "$suite"
    add_packages "$root.base" "${engines[@]}"
    copy_settings "$root.base"
    mv "$root.base" "$root"
fi
if [ "$(cat "$root.modules" 2>/dev/null)" != "${modules[*]}" ]; then
    copy_project "$root"
    contained "${clean[@]}" bash "$project/tests/engines/run.sh" enter "$root" tests/engines/run.sh prepare ||
        die "cannot install ${modules[*]}"
    printf '%s\n' "${modules[*]}" >"$root.modules"
fi
[ "${1-}" != --root-only ] || exit 0
[ $# -eq 0 ] || shift
copy_project "$root"
contained "${clean[@]}" SUITE="$suite" bash "$project/tests/engines/run.sh" enter "$root" tests/engines/run.sh tests "$@" ||
    die "the engines of $suite"
# Of some of the tests there is no whole table.
[ $# -gt 0 ] || python3 "$project/tests/engines/table.py" "$suite" "$root/project/engines.json" ||
    die "docs/ENGINES.md: WRITE=yes tests/run --engines $suite"
say "all passed with the engines of $suite"
