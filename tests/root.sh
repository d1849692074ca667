# SPDX-License-Identifier: Apache-2.0
# Sourced by tests/matrix.sh, tests/kernel/run.sh and tests/engines/run.sh, after tests/setup.sh: a Debian root file
# system with the project.
# shellcheck shell=bash disable=SC2034,SC2154  # project, child and the lists are theirs

# The mirror that this machine's apt uses for Debian itself.
mirror() {
    apt-get indextargets --format "\$(REPO_URI)" 'Identifier: Packages' 'Origin: Debian' 'Label: Debian' |
        awk '!found && /^(https?|file):/ { print; found = 1 } END { exit !found }'
}

# What the root that runs the project's tests has. netavark, since debootstrap finds no package for the
# container-network-stack that podman wants.
tests_packages=("${build_packages[@]}" "${container_packages[@]}" mount "${check_packages[@]}" netavark)

# make_root ROOT SUITE PACKAGE...: by debootstrap, under another name until it is whole. With foreign=ARCHITECTURE, one of
# Debian's, it is for that: its packages are unpacked here and set up by their own programs, emulated.
make_root() {
    local root=$1 suite=$2 from proxy=''
    shift 2
    set -- ca-certificates "$@"
    need_packages debootstrap debian-archive-keyring
    from=$(mirror) || { apt-get -q update >/dev/null && from=$(mirror); } ||
        die "the sources of apt name no mirror of Debian"
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    say "making $root from $suite: some minutes"
    mkdir -p "${root%/*}"
    rm -rf --one-file-system "$root.new"
    contained env ${proxy:+"http_proxy=$proxy"} debootstrap ${foreign:+--foreign "--arch=$foreign"} --variant=minbase \
        --include="$(IFS=,; printf '%s' "$*")" "$suite" "$root.new" "$from" >"$root.log" 2>&1 ||
        die "debootstrap: see $root.log"
    # Nothing is synced: what is interrupted is made anew.
    [ -z "${foreign:-}" ] || { mkdir -p "$root.new/etc/dpkg/dpkg.cfg.d" && echo force-unsafe-io >"$root.new/etc/dpkg/dpkg.cfg.d/lean"; }
    # In a user namespace nobody can make device nodes: debootstrap made them before, and "lxc" tells it not to try.
    [ -z "${foreign:-}" ] || contained "${clean[@]}" container=lxc bash "$project/tests/kernel/run.sh" emulated \
        chroot "$root.new" /debootstrap/debootstrap --second-stage >>"$root.log" 2>&1 ||
        die "debootstrap --second-stage: see $root.log"
    mv "$root.new" "$root"
    rm "$root.log"
}

# add_packages ROOT PACKAGE...: by the root's own apt, which knows what debootstrap does not: alternatives. No service is
# started, nothing is synced, and what nobody reads is left out. A mirror may be behind, as for debootstrap.
add_packages() {
    local root=$1 proxy=''
    shift
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    say "installing in $root: $*"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/'{doc,locale,man}'/*' >"$root/etc/dpkg/dpkg.cfg.d/lean"
    copy_settings "$root"
    contained "${clean[@]}" ${proxy:+"http_proxy=$proxy"} DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c '
        apt-get -q -o Acquire::Check-Valid-Until=false update &&
        apt-get -q -y --no-install-recommends install "$@" && apt-get clean' sh "$@" \
        >"$root.log" 2>&1 || die "apt-get: see $root.log"
    rm "$root.log"
}

# How names, certificates and packages are found is this machine's business: what it knows, the root is told.
copy_settings() {
    local root=$1 file
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" \
        "$HOME/.pip/pip.conf" "${PIP_CONFIG_FILE:-}" /etc/ssl/certs/ca-certificates.crt \
        "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
        [ ! -f "$file" ] || { mkdir -p "$root${file%/*}" && cp -L --remove-destination "$file" "$root$file"; }
    done
}

# A copy: what the tests make beside the project stays there, and its .venv is that root's own.
copy_project() {
    mkdir -p "$1/project"
    find "$1/project" -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
    tar -C "$project" --exclude='./.?*' --exclude=__pycache__ -c . | tar -C "$1/project" --no-same-owner -x
}

# contained COMMAND...: in namespaces of its own. It ends with us however we end, and with it all that it started and
# all that it mounted.
contained() {
    setpriv --pdeathsig KILL unshare --mount --propagation private --pid --kill-child "$@" 9>&- &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

# emulated COMMAND...: programs of arm64 run here too, by qemu. They are registered in a user namespace, so that nothing
# changes outside of it: needs Linux 6.7. Where the machine has registered them already, that is used.
emulated() {
    [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || exec "$@"
    mount -t proc proc /proc
    unshare --user sleep infinity &
    local holder=$!
    until [ "$(readlink "/proc/$holder/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do :; done
    echo "0 0 4294967295" >"/proc/$holder/uid_map"
    echo "0 0 4294967295" >"/proc/$holder/gid_map"
    # As in Debian's binfmt.d: ELF, 64 bits, little-endian, e_machine 183. F: the emulator is found from any root.
    # shellcheck disable=SC2016  # $@ is that of the shell within
    exec nsenter --user="/proc/$holder/ns/user" --preserve-credentials \
        unshare --mount --propagation private --pid --kill-child bash -c '
            mount -t proc proc /proc && mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc &&
                printf "%s%s%s" ":qemu-aarch64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00" \
                    "\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff" \
                    ":/usr/bin/qemu-aarch64-static:OCF" >/proc/sys/fs/binfmt_misc/register ||
                { echo "cannot register qemu-aarch64: needs Linux 6.7, or a registration by the machine" >&2; exit 1; }
            emulating=yes exec "$@"' bash "$@"
}

# enter ROOT COMMAND...: a chroot would not do, runtimes want a root that is a mount.
enter() {
    local root=$1
    shift
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    # The emulator's registration lasts as long as this is mounted somewhere.
    [ -z "${emulating:-}" ] || mount -t binfmt_misc binfmt_misc "$root/proc/sys/fs/binfmt_misc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=755 run "$root/run"
    # crun refuses a machine that has both cgroup versions mounted. In a user namespace nobody can unmount one, and none is
    # run.
    ! mountpoint -q "$root/sys/fs/cgroup/unified" || umount "$root/sys/fs/cgroup/unified" || [ -n "${emulating:-}" ]
    cd "$root"
    # Newer Debian has pivot_root(8) in a package of its own.
    bin/busybox pivot_root . mnt
    cd /project
    umount -l /mnt
    exec "$@"
}

# What a script that sources this does at its end, however it ends.
child=
trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Of nothing else than what the root needs: a test that reads more of this machine's environment is wrong.
clean=(env -u PYTHONPATH -u PYTHONHOME -u VIRTUAL_ENV -u TMPDIR PATH=/usr/sbin:/usr/bin:/sbin:/bin)
