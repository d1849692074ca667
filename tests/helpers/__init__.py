# SPDX-License-Identifier: Apache-2.0
"""What the tests share, and where it is.

Documents and tables:
    schema_tables    for each schema valid documents, and for each of its places invalid ones
    config_tables    the same for the schemas of config.json
    promises         what a release promises, as tests/data/promised.json keeps it
    configs          the config.json files in tests/data/configs, by name
    requests         mounts of config.json and arguments of --mount, as requests
    hooks_d_tables   hooks.d folders, and which of their hooks an engine calls

Mounts in a namespace, without a runtime:
    hostile_rootfs   a tree whose links lead everywhere
    mounting         mount(2) and mountinfo, literal trees, and a Bench on which requests become mounts
    kernels          older kernels, played by a seccomp filter

Containers:
    support          a busybox rootfs, bundles, runc and crun in a mount namespace of their own, snapshots of trees
    world            the installed hook, registered in bundles, and what is the same before and after a container's life
    podman           podman with a storage of its own
    corpus           what holds after every attack: for a dry-run and a real run alike

Programs:
    terminal         commands, mostly the hook's own, on a terminal as wide as is wanted

Processes that interfere:
    rival            exchanges names in a rootfs while the hook works there
    peer             looks into the hook's process as one of another container may
    sweep            stops the hook, or refuses it something, at each of its system calls in turn
"""
