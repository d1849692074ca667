#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tests with real engines: containerd, docker, podman and runsc of a Debian suite, on this kernel; called by
#   tests/run --engines [SUITE] [-- PYTEST-ARGUMENT...]
# SUITE is bookworm if it is not said; unstable has docker and containerd that read CDI. Nothing is installed on this
# machine: the engines are in a root file system of their own, one gigabyte, which is made once, in .engines/SUITE. To
# be rid of it, or have it made anew with what the suite holds by then:
#   rm -r .engines
set -euo pipefail

me=tests/run
# shellcheck source=tests/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/root.sh
. "$project/tests/root.sh"

# python3-prctl is built already; jsonschema and grpcio come by pip, since those of bookworm are old.
engine_packages=(busybox-static ca-certificates containerd crun docker.io iproute2 mount podman procps runc runsc uidmap)
engine_packages+=(util-linux python3-prctl python3-venv netavark)

# What is run in the root, as on a machine of a user.
tests() {
    cd "$project"
    if [ ! -e "$venv/made" ]; then
        python3 -m venv --system-site-packages "$venv"
        "$venv/bin/pip" install -qq --disable-pip-version-check pytest grpcio "jsonschema>=4.18" "packaging>=24.2" "setuptools>=77"
        touch "$venv/made"
    fi
    "$venv/bin/pip" install -qq --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall "$project"
    rm -rf /tmp/pytest-of-*
    [ $# -gt 0 ] || set -- tests/engines
    "$venv/bin/python" -m pytest -q -p no:cacheprovider --confcutdir=tests/engines "$@"
}

case ${1-} in
    enter | tests) "$@"; exit ;;
esac

only_root=
if [ "${1-}" = --only-root ]; then
    only_root=yes # it is made, and nothing is run
    shift
fi
suite=bookworm
if [ $# -gt 0 ] && [ "$1" != -- ]; then
    suite=$1
    shift
fi
[[ $suite =~ ^[a-z]+$ && ${1---} = -- ]] || die "usage: tests/run --engines [--only-root] [SUITE] [-- PYTEST-ARGUMENT...]"
[ $# -eq 0 ] || shift
[ "$(id -u)" = 0 ] || die "engines need root"

root=$project/.engines/$suite
mkdir -p "$project/.engines"
exec 9>"$root.lock"
flock -n 9 || die "it is running already"
[ -d "$root" ] || make_root "$root" "$suite" "${engine_packages[@]}"
[ -z "$only_root" ] || exit 0
copy_settings "$root"
copy_project "$root"
contained "${clean[@]}" bash "$project/tests/engines.sh" enter "$root" bash tests/engines.sh tests "$@" ||
    die "with the engines of $suite"
say "all passed with the engines of $suite"
