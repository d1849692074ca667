# SPDX-License-Identifier: Apache-2.0
# Sourced by tests/run and examples/run: the Debian packages and the virtual environment that both need.
# shellcheck shell=bash disable=SC2034,SC2154  # me comes from the script that sources this; the lists go to it

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$project/.venv

install=yes # or no: then what is missing is listed, and nothing is installed

say() { printf '%s: %s\n' "$me" "$*"; }
die() { say "failed: $*" >&2; exit 1; }

# need_packages PACKAGE...: installs by apt those that are missing, and asks nothing if none is.
need_packages() {
    local package missing=()
    if ! command -v dpkg-query >/dev/null; then
        say "this is not Debian: assuming that what these packages contain is installed: $*"
        return
    fi
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ $install = no ]; then
        printf 'missing package: %s\n' "${missing[@]}" >&2
        die "nothing is installed with --no-install"
    fi
    [ "$(id -u)" = 0 ] || die "only root can install: ${missing[*]}"
    say "installing by apt: ${missing[*]}"
    # One at a time: apt-get does not wait for another one that updates its lists.
    (
        flock 8
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"
        } >"$project/.setup.log" 2>&1 || { cat "$project/.setup.log"; exit 1; }
        rm -f "$project/.setup.log"
    ) 8<"$project" || die "apt-get cannot install: ${missing[*]}"
}

# need_venv: makes .venv with the project, editable, and its [test] tools; again only if what it is made from changes.
need_venv() {
    local key
    if [ $install = no ]; then
        need_modules
        return
    fi
    key=$(cd "$project" && { sha256sum pyproject.toml; python3 -V; pwd; })
    (
        flock 9
        [ "$(cat "$venv/made-from" 2>/dev/null)" != "$key" ] || exit 0
        say "making .venv with $(python3 -V)"
        python3 -m venv --clear "$venv" && "$venv/bin/pip" install -qq --disable-pip-version-check -e "${project}[test]" &&
            printf '%s\n' "$key" >"$venv/made-from"
    ) 9>"$project/.venv.lock" || die "cannot make $venv"
}

# need_modules: the modules that the tests import, in .venv, or where there is none in the Python itself.
need_modules() {
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv --without-pip --system-site-packages "$venv" || die "cannot make $venv"
    fi
    "$venv/bin/python" - <<'PYTHON' || die "nothing is installed with --no-install"
import importlib.util
import sys

names = "build coverage hypothesis jsonschema mypy prctl pytest ruff setuptools xdist yaml".split()
missing = [name for name in names if importlib.util.find_spec(name) is None]
for name in missing:
    print(f"missing Python module: {name}", file=sys.stderr)
sys.exit(bool(missing))
PYTHON
}

# What python-prctl is built with, and what python3 needs for a venv.
build_packages=(gcc libc6-dev libcap-dev python3-dev python3-venv)
# What the containers need.
container_packages=(runc crun busybox-static util-linux)
# What else the tests call.
check_packages=(btrfs-progs strace podman groff-base man-db mandoc bash-completion zsh fish systemd)
# What judges the packages that the tests make.
lint_packages=(lintian)
