#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tests that need root, under an older Linux in a virtual machine; called by
#   tests/run --kernel VERSION [--arch arm64] [-- PYTEST-ARGUMENT...]
# VERSION is one of Debian's cloud kernels: 5.10, 6.1 or 6.12. Without arguments pytest runs tests/mount and some of
# tests/e2e. qemu emulates the processor, which takes several times as long. What is made once,
# three gigabytes, is kept in .matrix; the results of the last run are in .matrix/kernel-VERSION/results, or those of arm64
# in .matrix/kernel-VERSION-arm64/results. To be rid of it, or have it made anew:
#   rm -r .matrix
set -euo pipefail

me=tests/run
# shellcheck source=tests/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
# shellcheck source=tests/root.sh
. "$project/tests/root.sh"

declare -A suites=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie)
# Whose Python and runtimes run the tests: they start on all three kernels.
suite=bookworm
# What asks the kernel most. The others are the same on any: texts, engines' folders, what needs the network; or they take
# long where the processor is emulated, and ask nothing else.
fit=(doctor gone idmap lifecycle readonly_root records reused_ids stages userns)

# fetch_kernel VERSION FOLDER: Debian's kernel and its modules, unpacked to FOLDER. apt looks for them in lists of its
# own, with the keys of Debian's archive: the suite need not be among this machine's sources.
fetch_kernel() {
    local version=$1 folder=$2 from package apt
    from=$(mirror) || { apt-get -q update >/dev/null && from=$(mirror); } ||
        die "the sources of apt name no mirror of Debian"
    say "fetching Linux $version of ${suites[$version]}"
    rm -rf "$folder.new"
    mkdir -p "$folder.new/lists/partial" "$folder.new/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from ${suites[$version]} main" >"$folder.new/sources"
    apt=(-qq -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o Dir::State::status=/dev/null
        -o "Dir::Etc::SourceList=$folder.new/sources" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$folder.new/lists" -o "Dir::Cache=$folder.new/cache" -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update || die "apt-get cannot read the packages of ${suites[$version]} from $from"
    package=$(apt-cache "${apt[@]}" depends "linux-image-cloud-$arch" | awk '$1 == "Depends:" { print $2; exit }')
    [[ $package = "linux-image-$version".* ]] || die "${suites[$version]} has ${package:-no cloud kernel}, not $version"
    (cd "$folder.new" && apt-get "${apt[@]}" download "$package") || die "apt-get cannot fetch $package"
    dpkg-deb -x "$folder.new"/linux-image-*.deb "$folder.new/tree"
    # Newer Debian packs them, which depmod understands and busybox does not.
    find "$folder.new/tree" -name '*.ko.xz' -exec xz -d {} +
    [ -e "$folder.new/tree/lib" ] || ln -s usr/lib "$folder.new/tree/lib"
    depmod -b "$folder.new/tree" "$(ls "$folder.new/tree/lib/modules")"
    rm -rf "$folder.new"/{lists,cache,*.deb}
    mv "$folder.new" "$folder"
}

# make_initrd MODULES FILE: what the kernel starts with: it finds the disks, and enters the root.
make_initrd() {
    local modules=$1 file=$2 tree release
    release=${modules##*/}
    tree=$(mktemp -d "$file.XXXXXX")
    mkdir -p "$tree"/{bin,dev,new,proc,sys} "$tree/lib/modules/$release"
    cp "$root/bin/busybox" "$tree/bin/busybox"
    cp "$project/tests/kernel/initrd.sh" "$tree/init"
    cp "$modules"/modules.* "$tree/lib/modules/$release"
    for name in virtio_pci virtio_blk ext4 crc32c_generic; do
        modprobe -d "${modules%/lib/modules/*}" -S "$release" --show-depends --ignore-install "$name" 2>/dev/null || true
    done | awk '$1 == "insmod" { print $2 }' | while read -r from; do
        from=${from#"${modules%/*}/"}
        mkdir -p "$tree/lib/modules/${from%/*}"
        cp "${modules%/*}/$from" "$tree/lib/modules/$from"
    done
    (cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$file"
    rm -r "$tree"
}

# In the root, on this machine's kernel: a venv is made faster there, even by an emulator.
prepare() {
    need_venv
}

case ${1-} in
    emulated | enter | prepare) "$@"; exit ;;
esac

usage="usage: tests/run --kernel VERSION [--arch arm64] [-- PYTEST-ARGUMENT...], where VERSION is 5.10, 6.1 or 6.12"
version=${1-}
[[ -n $version && -n ${suites[$version]-} ]] || die "$usage"
shift
arch=amd64 foreign='' suffix=''
if [ "${1-}" = --arch ]; then
    [[ ${2-} =~ ^(amd64|arm64)$ ]] || die "$usage"
    arch=$2
    shift 2
fi
[ "${1---}" = -- ] || die "$usage"
[ $# -eq 0 ] || shift
[ "$(id -u)" = 0 ] || die "mounting needs root"
[ "$(uname -m)" = x86_64 ] || die "the root is made by programs of x86_64, this is $(uname -m)"
need_packages busybox-static debian-archive-keyring e2fsprogs kmod xz-utils
# Not /dev/kvm: in a virtual machine it may be there and run no old kernel. One processor: where several are emulated, a
# kernel that patches its own code, as for static keys, may wait for ever.
case $arch in
    amd64)
        need_packages qemu-system-x86
        machine=(qemu-system-x86_64 -cpu max)
        console=ttyS0
        ;;
    arm64)
        need_packages qemu-system-arm qemu-user-static
        machine=(qemu-system-aarch64 -M virt -cpu cortex-a72)
        console=ttyAMA0
        foreign=arm64 suffix=-arm64
        ;;
esac

root=$project/.matrix/$suite$suffix
folder=$project/.matrix/kernel-$version$suffix
mkdir -p "$project/.matrix"
exec 9>"$root.lock"
flock 9
[ -d "$root" ] || make_root "$root" "$suite" "${tests_packages[@]}"
[ -d "$folder" ] || fetch_kernel "$version" "$folder"
if [ ! -e "$root.ext4" ] || [ "$project/pyproject.toml" -nt "$root.ext4" ]; then
    copy_settings "$root"
    copy_project "$root"
    contained "${clean[@]}" bash "$project/tests/kernel/run.sh" ${foreign:+emulated bash "$project/tests/kernel/run.sh"} \
        enter "$root" tests/kernel/run.sh prepare ||
        die "cannot prepare $root"
    say "making $root.ext4"
    rm -f "$root.ext4"
    mkfs.ext4 -q -d "$root" "$root.ext4" 8G || die "mkfs.ext4 cannot make $root.ext4"
fi
flock -u 9

if [ $# -eq 0 ]; then
    fit=("${fit[@]/#/tests/e2e/test_}")
    set -- tests/mount "${fit[@]/%/.py}"
fi

work=$(mktemp -d "$folder/run.XXXXXX")
trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null || true; rm -rf "$work"' EXIT
modules=$(echo "$folder"/tree/lib/modules/*)
make_initrd "$modules" "$work/initrd"
mkdir -p "$work/in/project" "$work/in/usr/lib/modules"
tar -C "$project" --exclude='./.?*' --exclude=__pycache__ -c . | tar -C "$work/in/project" -x
cp -a "$modules" "$work/in/usr/lib/modules"
printf '%q ' "$@" >"$work/in/project/.arguments"
tar -C "$work/in" -c -f "$work/in.tar" .
truncate -s 256M "$work/out.tar"

say "Linux ${modules##*/} starts; what it says is in $folder/console"
machine=(timeout "${SECONDS_AT_MOST:-7200}" "${machine[@]}" -accel "tcg,thread=single" -smp 1 -m 4096 -nodefaults
    -no-reboot -display none -serial stdio -kernel "$folder"/tree/boot/vmlinuz-* -initrd "$work/initrd"
    -append "console=$console loglevel=5 panic=-1 oops=panic"
    -drive "file=$root.ext4,format=raw,if=virtio,snapshot=on"
    -drive "file=$work/in.tar,format=raw,if=virtio,readonly=on"
    -drive "file=$work/out.tar,format=raw,if=virtio")
ended=0
contained "${machine[@]}" </dev/null > >(sed -u 's/\r//g' | tee "$folder/console") 2>&1 || ended=$?
rm -rf "$folder/results"
mkdir "$folder/results"
tar -C "$folder/results" -x -f "$work/out.tar" 2>/dev/null || true
[ -e "$folder/results/status" ] || die "the machine ended with $ended and without a result: see $folder/console"
say "Linux $version: $(cat "$folder/results/counts")"
[ "$(cat "$folder/results/status")" = 0 ] || die "under Linux $version: see $folder/results"
