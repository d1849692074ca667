# SPDX-License-Identifier: Apache-2.0
# Sourced by hook/packages/debian and hook/packages/rpm, in the project's folder: what both packages hold.
# shellcheck shell=sh disable=SC2034  # version is theirs

library=usr/lib/oci-bind-hook
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' hook/oci_bind_hook/__init__.py)

# stage ROOT PYTHON WORK: the hook and what it needs below ROOT, for PYTHON, an absolute path, by way of a folder WORK.
stage() {
    "$2" -m venv "$3/venv"
    # python-prctl anew: one that pip has kept may be linked for another Python of this machine.
    "$3/venv/bin/pip" install -q --disable-pip-version-check --no-compile --no-cache-dir --use-pep517 \
        --target "$1/$library" .
    find "$1/$library" -name '*.so' -exec strip --strip-unneeded {} +
    rm -rf "${1:?}/$library/bin" "$1/$library"/oci_bind_hook-*.dist-info/direct_url.json
    mv "$1/$library/share" "$1/usr/share"
    gzip -9n "$1"/usr/share/man/*/*
    mkdir -p "$1/usr/bin" "$1/usr/share/doc/oci-bind-hook"
    cat >"$1/usr/bin/oci-bind-hook" <<SCRIPT
#!$2 -IS
import sys

sys.path.append("/$library")
from oci_bind_hook.cli import console

console()
SCRIPT
    chmod 755 "$1/usr/bin/oci-bind-hook"
    cp -r README.md SECURITY.md examples "$1/usr/share/doc/oci-bind-hook/"
}

# before_removal: the shell commands that take away what calls the package. A registration whose launcher finds nothing
# would keep every container from starting.
before_removal() {
    cat <<SCRIPT
    # Only what runs this package: another may be of a venv. What cannot be removed must not keep the package, but the
    # default runtime of an engine must: without it (69) the engine would not start. rpm's shell goes on after a failure.
    PATH=/usr/bin:\$PATH oci-bind-hook uninstall --all --own --apply || [ \$? -ne 69 ] || exit 1
SCRIPT
}
