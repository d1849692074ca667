#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tests with another Debian suite's runc, crun and Python, on this kernel; called by
#   tests/run --matrix [SUITE] [-- PYTEST-ARGUMENT...]
# SUITE is unstable if it is not said, and may be any that debootstrap knows. Its root file system, two gigabytes at
# most, is made once, in .matrix/SUITE; to be rid of it, or have it made anew with what the suite holds by then:
#   rm -r .matrix
set -euo pipefail

me=tests/run
# shellcheck source=tests/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tests/root.sh
. "$project/tests/root.sh"

# What is run in the root.
tests() {
    need_venv
    local report=/tmp/report.xml failed=0
    rm -rf /tmp/pytest-of-*
    cd "$project"
    say "Linux $(uname -r), $(python3 -V), $(runc --version | head -n 1), $(crun --version | head -n 1)"
    "$venv/bin/pytest" --junit-xml="$report" "$@" || failed=$?
    "$venv/bin/python" tests/matrix_table.py "$report"
    [ "$failed" -eq 0 ] || return "$failed"
    rm -rf /tmp/pytest-of-*
}

case ${1-} in
    enter | tests) "$@"; exit ;;
esac

suite=unstable
if [ $# -gt 0 ] && [ "$1" != -- ]; then
    suite=$1
    shift
fi
[[ $suite =~ ^[a-z]+$ && ${1---} = -- ]] || die "usage: tests/run --matrix [SUITE] [-- PYTEST-ARGUMENT...]"
[ $# -eq 0 ] || shift
[ "$(id -u)" = 0 ] || die "mounting needs root"

root=$project/.matrix/$suite
mkdir -p "$project/.matrix"
exec 9>"$root.lock"
flock -n 9 || die "it is running already"
[ -d "$root" ] || make_root "$root" "$suite" "${tests_packages[@]}" "${lint_packages[@]}"
copy_settings "$root"
copy_project "$root"
contained "${clean[@]}" bash "$project/tests/matrix.sh" enter "$root" tests/matrix.sh tests "$@" ||
    die "with $suite"
say "all passed with $suite"
