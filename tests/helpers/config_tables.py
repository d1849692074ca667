# SPDX-License-Identifier: Apache-2.0
"""Documents for the schemas of config.json, room by room: what is valid, and for each place what is not."""

from __future__ import annotations

from typing import Any

from helpers.schema_tables import GONE, NUL, VALID, below

# Values that are refused where something of a kind belongs. Those that Go and C read differently are among them.
NO_INTEGER = ("1", 1.0, True, None)
UINT16 = (*NO_INTEGER, -1, 2**16)
INT32 = (*NO_INTEGER, -(2**31) - 1, 2**31)
UINT32 = (*NO_INTEGER, -1, 2**32)
INT64 = (*NO_INTEGER, -(2**63) - 1, 2**63)
UINT64 = (*NO_INTEGER, -1, 2**64)
BOOLEAN = (0, "true", None)
OBJECT: tuple[Any, ...] = ([], "x", None)
ARRAY: tuple[Any, ...] = ({}, "x", None)
TEXT = (1, None, NUL)
NAME = (*TEXT, "")  # a path that may be relative, too
ABSOLUTE = (*NAME, "rel")
VARIABLE = (1, None, "A", "=a", "A=\0")
NUMBERS = (1, None, "a", "0-", "-1", "0,", "0-3\n", "0;1")
WORD = (1, None, "banana", "")  # where there is a choice of words, none of them empty
REQUIRED = (GONE,)
OTHERS = "/process /linux /solaris /windows /vm /zos /freebsd"

DEVICE_NUMBERS = "major minor"
SETS = "bounding effective inheritable permitted ambient"
THROTTLES = "throttleReadBpsDevice throttleWriteBpsDevice throttleReadIOPSDevice throttleWriteIOPSDevice"
RUNS = "uidMappings/0 gidMappings/0"
SHARED = "ip4 ip6 sysvmsg sysvsem sysvshm"
JAIL_LISTS = "ip4Addr ip6Addr vnetInterfaces allow/mount"
ALLOWED = "setHostname rawSockets chflags quotas socketAf mlock reservedPorts suser"
ANET = "linkname lowerLink allowedAddress configureAllowedAddress defrouter macAddress linkProtection"

IDS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
DEVICE = {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 8630, "uid": 0, "gid": 0}
HARDWARE = {
    "deviceTree": "/srv/vm.dtb",
    "vcpus": 1,
    "memory": 4194304,
    "dtdevs": ["/soc/uart"],
    "iomems": [{"firstGFN": 0, "firstMFN": 4, "nrMFNs": 1}, {"firstMFN": 8, "nrMFNs": 2}],
    "irqs": [11, 12],
}

# For each room a valid document that has every member the schema knows.
ROOMS: dict[str, Any] = {
    "config-process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5], "username": "u"},
        "args": ["sh", ""],
        "commandLine": "cmd /c dir",
        "env": ["A=b=c", "B="],
        "cwd": "/",
        "capabilities": {each: ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"] for each in SETS.split()},
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 0, "hard": 2**64 - 1},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
        "noNewPrivileges": False,
        "apparmorProfile": "p",
        "selinuxLabel": "system_u:system_r:container_t:s0:c1,c2",
        "oomScoreAdj": -1000,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": -20,
            "priority": 0,
            "flags": ["SCHED_FLAG_RECLAIM"],
            "runtime": 1,
            "deadline": 2,
            "period": 3,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7},
        "execCPUAffinity": {"initial": "7", "final": "0-3, 7"},
    },
    "config-linux": {
        "namespaces": [{"type": "mount"}, {"type": "time", "path": "/run/ns/time"}],
        "uidMappings": IDS,
        "gidMappings": IDS,
        "timeOffsets": {"monotonic": {"secs": -(2**63)}, "boottime": {"nanosecs": 1}, "7": {"secs": 1, "nanosecs": 1}},
        "devices": [DEVICE, {"type": "p", "path": "/dev/pipe"}],
        "netDevices": {"eth0": {"name": "wan0"}, "eth1": {}},
        "cgroupsPath": "system.slice:box:c1",
        "resources": {},
        "intelRdt": {
            "closID": "gold",
            "schemata": ["L3:0=f", "MB:0=20"],
            "l3CacheSchema": "L3:0=f;1=f",
            "memBwSchema": "MB:0=20;1=70",
            "enableMonitoring": True,
            "enableCMT": True,
            "enableMBM": True,
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/IP_forward": ""},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "",
        "personality": {"domain": "LINUX32", "flags": ["x"]},
    },
    "config-linux-resources": {
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": -1, "minor": -1}],
        "memory": {
            "limit": 1,
            "reservation": 2,
            "swap": -1,
            "kernel": -1,
            "kernelTCP": 2**63 - 1,
            "swappiness": 100,
            "disableOOMKiller": False,
            "useHierarchy": True,
            "checkBeforeUpdate": True,
        },
        "cpu": {
            "shares": 1024,
            "quota": -1,
            "burst": 0,
            "period": 100000,
            "realtimeRuntime": 950000,
            "realtimePeriod": 1000000,
            "cpus": "0-3,8-15:2/4",
            "mems": "",
            "idle": 1,
        },
        "pids": {"limit": -1},
        "blockIO": {
            "weight": 10,
            "leafWeight": 1000,
            "weightDevice": [
                {"major": 8, "minor": 0, "weight": 500},
                {"major": 8, "minor": 16, "leafWeight": 300},
            ],
            **{each: [{"major": 8, "minor": 0, "rate": 600}] for each in THROTTLES.split()},
        },
        "hugepageLimits": [{"pageSize": "64KB", "limit": 2**64 - 1}],
        "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3}, "mlx4_0": {"hcaObjects": 1}, "Mlx4_0": {"hcaObjects": 1}},
        "unified": {"memory.max": "1", "Memory.max": "max\n"},
    },
    "config-seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "m",
        "syscalls": [
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "errnoRet": 1,
                "args": [{"index": 5, "value": 2**64 - 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            }
        ],
    },
    "config-vm": {
        "hypervisor": {"path": "/usr/bin/vmm", "parameters": ["--quiet"]},
        "kernel": {"path": "/srv/vmlinux", "parameters": ["console=hvc0"], "initrd": "/srv/initrd"},
        "image": {"path": "/srv/root.raw", "format": "raw"},
        "hwConfig": HARDWARE,
    },
    "config-windows": {
        "layerFolders": ["C:\\Layers\\1", "C:\\scratch"],
        "devices": [{"id": "24E552D7-6523-47F7-A647-D3465BF1F5CA", "idType": "class"}],
        "resources": {
            "memory": {"limit": 2097152},
            "cpu": {"count": 1, "shares": 2, "maximum": 10000, "affinity": [{"mask": 3, "group": 0}]},
            "storage": {"iops": 50, "bps": 1000, "sandboxSize": 2**40},
        },
        "network": {
            "endpointList": ["e"],
            "allowUnqualifiedDNSQuery": True,
            "DNSSearchList": ["a.example"],
            "networkSharedContainerName": "c",
            "networkNamespace": "n",
        },
        "credentialSpec": {"any": 1},
        "servicing": True,
        "ignoreFlushesDuringBoot": True,
        "hyperv": {"utilityVMPath": "C:\\vm"},
    },
    "config-solaris": {
        "milestone": "svc:/milestone/container:default",
        "limitpriv": "default",
        "maxShmMemory": "512m",
        "cappedCPU": {"ncpus": "8"},
        "cappedMemory": {"physical": "1g", "swap": "2g"},
        "anet": [{each: "a" for each in ANET.split()}],
    },
    "config-freebsd": {
        "devices": [{"path": "pf", "mode": 448}],
        "jail": {
            "parent": "p",
            "host": "new",
            "vnet": "inherit",
            "interface": "em0",
            "enforceStatfs": 1,
            **{each: "disable" for each in SHARED.split()},
            **{each: ["a"] for each in ("ip4Addr", "ip6Addr", "vnetInterfaces")},
            "allow": {"mount": ["tmpfs"], **{each: True for each in ALLOWED.split()}},
        },
    },
    "config-zos": {"namespaces": [{"type": "ipc", "path": "/ns"}, {"type": "pid"}], "devices": [DEVICE]},
}
WHOLE: dict[str, Any] = {
    **VALID["config-used"],
    "hostname": "h",
    "domainname": "d",
    "process": ROOMS["config-process"],
    "linux": ROOMS["config-linux"] | {"resources": ROOMS["config-linux-resources"], "seccomp": ROOMS["config-seccomp"]},
    **{each: ROOMS[f"config-{each}"] for each in ("solaris", "windows", "vm", "zos", "freebsd")},
}

SPELLED_BY_GO = {key: value for key, value in ROOMS["config-vm"].items() if key != "hwConfig"} | {"hwconfig": HARDWARE}

# More that must be accepted: a room, a place in its document, and what is put there.
ALSO_VALID: list[tuple[str, str, Any]] = [
    ("config", "/process", GONE),
    ("config", "/proce\u00df", 1),  # which Go does not take for process
    ("config", "/linux", {}),
    *[("config", "/ociVersion", version) for version in ("1.0.2-dev", "1.2.0+dev", "1.0.0-rc5.1+git.f", "10.20.30")],
    ("config", "/platform", {"os": "linux"}),
    ("config-process", "/args", GONE),
    ("config-process", "/user", {"uid": 1, "gid": 1}),
    ("config-process", "/user", {"username": "ContainerUser"}),
    ("config-process", "/cwd", "C:\\"),
    ("config-process", "/rlimits/0/type", "RLIMIT_RTTIME"),
    ("config-process", "/oomScoreAdj", 1000),
    ("config-process", "/execCPUAffinity/final", ""),
    ("config-linux", "/devices/0/fileMode", 0o60660),
    ("config-linux", "/namespaces/1/path", ""),
    ("config-linux", "/netDevices/enp0s31f6.100", {}),
    ("config-linux", "/sysctl/NET.ipv4.ip_forward", "0"),
    ("config-linux-resources", "/pids", {}),
    ("config-linux-resources", "/blockIO", {}),
    ("config-linux-resources", "/hugepageLimits/0/pageSize", "1GB"),
    ("config-seccomp", "/listenerMetadata", GONE),
    ("config-vm", "", SPELLED_BY_GO),
    ("config-vm", "/hypervisor/path", ""),
    ("config-vm", "/image", {"path": "", "format": ""}),
    ("config-vm", "/hypervisor", GONE),
    ("config-windows", "/credentialSpec", "{}"),
    ("config-windows", "/devices/0/idType", "vpci-location-path"),
]

# All the words of every choice, by the place of the first that is met.
PROPAGATION = "private rprivate slave rslave shared rshared unbindable runbindable"
NAMESPACES = "pid network mount ipc uts user cgroup time"
ACTIONS = "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY"
ARCHITECTURES = (
    "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 "
    "PPC PPC64 PPC64LE S390 S390X SH SHEB PARISC PARISC64 RISCV64"
)


def words(text: str, prefix: str = "") -> set[str]:
    """The words of a text, each with a prefix."""
    return {prefix + word for word in text.split()}


CHOICES: dict[str, dict[str, set[str]]] = {
    "config-used": {
        "/linux/rootfsPropagation": words(PROPAGATION) | {""},
        "/linux/namespaces/0/type": words(NAMESPACES),
    },
    "config-process": {
        "/scheduler/policy": words("OTHER FIFO RR BATCH ISO IDLE DEADLINE", "SCHED_"),
        "/scheduler/flags/0": words(
            "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX", "SCHED_FLAG_"
        ),
        "/ioPriority/class": words("RT BE IDLE", "IOPRIO_CLASS_"),
    },
    "config-linux": {
        "/namespaces/0/type": words(NAMESPACES),
        "/devices/0/type": words("b c u p"),
        "/memoryPolicy/mode": words(
            "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL", "MPOL_"
        ),
        "/memoryPolicy/flags/0": words("NUMA_BALANCING RELATIVE_NODES STATIC_NODES", "MPOL_F_"),
        "/seccomp/defaultAction": words(ACTIONS, "SCMP_ACT_"),
        "/rootfsPropagation": words(PROPAGATION) | {""},
        "/personality/domain": words("LINUX LINUX32"),
    },
    "config-linux-resources": {"/devices/0/type": words("a b c")},
    "config-seccomp": {
        "/defaultAction": words(ACTIONS, "SCMP_ACT_"),
        "/architectures/0": words(ARCHITECTURES, "SCMP_ARCH_"),
        "/flags/0": words("TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_"),
        "/syscalls/0/action": words(ACTIONS, "SCMP_ACT_"),
        "/syscalls/0/args/0/op": words("NE LT LE EQ GE GT MASKED_EQ", "SCMP_CMP_"),
    },
    "config-vm": {"/image/format": words("raw qcow2 vdi vmdk vhd") | {""}},
    "config-windows": {},
    "config-solaris": {},
    "config-freebsd": {
        **{f"/jail/{each}": words("disable new inherit") for each in SHARED.split()},
        **{f"/jail/{each}": words("new inherit") for each in ("host", "vnet")},
    },
    "config-zos": {"/namespaces/0/type": words("mount pid uts ipc"), "/devices/0/type": words("b c u p")},
}

_TABLES: dict[str, list[tuple[tuple[Any, ...], str]]] = {
    "config-process": [
        (OBJECT, " /consoleSize /user /capabilities /rlimits/0 /scheduler /ioPriority /execCPUAffinity"),
        (OBJECT, ""),
        (ARRAY, "/user/additionalGids /args /env /rlimits /scheduler/flags " + below("/capabilities", SETS)),
        (REQUIRED, "/cwd /consoleSize/height /consoleSize/width /rlimits/0/type /rlimits/0/soft /rlimits/0/hard"),
        (REQUIRED, "/scheduler/policy /ioPriority/class /ioPriority/priority"),
        (BOOLEAN, "/terminal /noNewPrivileges"),
        (UINT64, "/consoleSize/height /consoleSize/width /rlimits/0/soft /rlimits/0/hard"),
        (UINT64, "/scheduler/runtime /scheduler/deadline /scheduler/period"),
        (UINT32, "/user/uid /user/gid /user/umask /user/additionalGids/0"),
        (INT32, "/scheduler/nice /scheduler/priority"),
        (TEXT, "/user/username /args/0 /commandLine /apparmorProfile /selinuxLabel"),
        (([],), "/args"),
        (VARIABLE, "/env/0"),
        ((*ABSOLUTE, "C:", "C:rel"), "/cwd"),
        (
            (1, None, "CHOWN", "cap_chown", "CAP_", "CAP_CHOWN\n"),
            below("/capabilities", " ".join(f"{each}/0" for each in SETS.split())),
        ),
        ((1, None, "NOFILE", "RLIMIT_nofile", "RLIMIT_", "RLIMIT_CPU\n"), "/rlimits/0/type"),
        (("RLIMIT_NOFILE",), "/rlimits/1/type"),
        ((*NO_INTEGER, -1001, 1001), "/oomScoreAdj"),
        (WORD, "/scheduler/policy /scheduler/flags/0 /ioPriority/class"),
        ((*NO_INTEGER, -1, 8), "/ioPriority/priority"),
        (NUMBERS, "/execCPUAffinity/initial /execCPUAffinity/final"),
    ],
    "config-linux": [
        (OBJECT, ""),
        (OBJECT, "/timeOffsets /timeOffsets/monotonic /timeOffsets/boottime /timeOffsets/7 /devices/0 /netDevices"),
        (OBJECT, "/netDevices/eth0 /resources /intelRdt /memoryPolicy /sysctl /seccomp /personality"),
        (OBJECT, f"/namespaces/0 {below('', RUNS)}"),
        (ARRAY, "/namespaces /uidMappings /gidMappings /devices /intelRdt/schemata /memoryPolicy/flags"),
        (ARRAY, "/maskedPaths /readonlyPaths /personality/flags"),
        (REQUIRED, "/namespaces/0/type /devices/0/type /devices/0/path /devices/0/major /devices/0/minor"),
        (REQUIRED, "/devices/1/type /devices/1/path /memoryPolicy/mode /personality/domain"),
        ((*UINT32, GONE), " ".join(below(f"/{run}", "containerID hostID size") for run in RUNS.split())),
        (INT64, " ".join(f"/timeOffsets/{each}/secs" for each in ("monotonic", "boottime", "7"))),
        (UINT32, " ".join(f"/timeOffsets/{each}/nanosecs" for each in ("monotonic", "boottime", "7"))),
        (INT64, below("/devices/0", DEVICE_NUMBERS)),
        (UINT32, below("/devices/0", "fileMode uid gid")),
        (ABSOLUTE, "/devices/0/path /maskedPaths/0 /readonlyPaths/0"),
        ((*TEXT, "rel"), "/namespaces/1/path"),
        (WORD, "/namespaces/0/type /devices/0/type /memoryPolicy/mode /memoryPolicy/flags/0 /personality/domain"),
        (("mount",), "/namespaces/1/type"),
        ((1, None, "banana"), "/rootfsPropagation"),
        ((1, None, "", ".", "..", "a/b", "a:b", "a b", "eth0\n", NUL, "a" * 16), "/netDevices/eth0/name"),
        (
            ({},),
            "/netDevices/ /netDevices/. /netDevices/.. /netDevices/a:b /netDevices/a~1b /netDevices/abcdefghijklmnop",
        ),
        (TEXT, "/cgroupsPath /intelRdt/closID /intelRdt/schemata/0 /intelRdt/l3CacheSchema /mountLabel"),
        (TEXT, "/sysctl/net.ipv4.ip_forward /personality/flags/0"),
        (("1",), "/sysctl/"),
        ((1, None, "", "0=20", "MB:\n", "MB:0=20\nL3:0=f", "MB:\0"), "/intelRdt/memBwSchema"),
        (BOOLEAN, below("/intelRdt", "enableMonitoring enableCMT enableMBM")),
        (NUMBERS, "/memoryPolicy/nodes"),
    ],
    "config-linux-resources": [
        (OBJECT, ""),
        (OBJECT, "/devices/0 /memory /cpu /pids /blockIO /blockIO/weightDevice/0 /hugepageLimits/0 /network"),
        (OBJECT, "/network/priorities/0 /rdma /rdma/mlx5_1 /unified"),
        (OBJECT, " ".join(f"/blockIO/{each}/0" for each in THROTTLES.split())),
        (ARRAY, "/devices /blockIO/weightDevice /hugepageLimits /network/priorities " + below("/blockIO", THROTTLES)),
        (REQUIRED, "/devices/0/allow /hugepageLimits/0/pageSize /hugepageLimits/0/limit"),
        (REQUIRED, below("/network/priorities/0", "name priority")),
        (REQUIRED, below("/blockIO/weightDevice/0", "major minor weight") + " /rdma/mlx5_1/hcaHandles"),
        (REQUIRED, " ".join(below(f"/blockIO/{each}/0", "major minor rate") for each in THROTTLES.split())),
        (INT64, " ".join(below(f"/blockIO/{each}/0", DEVICE_NUMBERS) for each in THROTTLES.split())),
        (INT64, below("/devices/1", DEVICE_NUMBERS) + " " + below("/blockIO/weightDevice/0", DEVICE_NUMBERS)),
        (INT64, "/cpu/quota /cpu/realtimeRuntime /pids/limit"),
        (UINT64, "/cpu/shares /cpu/burst /cpu/period /cpu/realtimePeriod /hugepageLimits/0/limit"),
        (UINT64, " ".join(f"/blockIO/{each}/0/rate" for each in THROTTLES.split())),
        (UINT32, "/network/classID /network/priorities/0/priority /rdma/mlx5_1/hcaHandles /rdma/mlx4_0/hcaObjects"),
        (UINT16, "/blockIO/weight /blockIO/leafWeight /blockIO/weightDevice/0/weight"),
        (UINT16, "/blockIO/weightDevice/1/leafWeight"),
        ((*NO_INTEGER, -2, 2**63), below("/memory", "limit reservation swap kernel kernelTCP")),
        ((*NO_INTEGER, -1, 101), "/memory/swappiness"),
        ((*NO_INTEGER, -1, 2), "/cpu/idle"),
        (BOOLEAN, "/devices/0/allow " + below("/memory", "disableOOMKiller useHierarchy checkBeforeUpdate")),
        (WORD, "/devices/1/type"),
        ((1, None, "", "x", "rw\n"), "/devices/0/access"),
        (NUMBERS, "/cpu/cpus /cpu/mems"),
        ((1, None, "", "64kB", "0MB", "2M", "1TB", "2MB\n"), "/hugepageLimits/0/pageSize"),
        (NAME, "/network/priorities/0/name"),
        (({"hcaHandles": 1},), "/rdma/"),
        (TEXT, "/unified/memory.max"),
        (("1",), "/unified/ /unified/a~1b"),
    ],
    "config-seccomp": [
        (OBJECT, ""),
        (OBJECT, "/syscalls/0 /syscalls/0/args/0"),
        (ARRAY, "/architectures /flags /syscalls /syscalls/0/names /syscalls/0/args"),
        (REQUIRED, "/defaultAction /listenerPath /syscalls/0/names /syscalls/0/action"),
        (REQUIRED, below("/syscalls/0/args/0", "index value op")),
        (WORD, "/defaultAction /architectures/0 /flags/0 /syscalls/0/action /syscalls/0/args/0/op"),
        (UINT32, "/defaultErrnoRet /syscalls/0/errnoRet"),
        (UINT64, below("/syscalls/0/args/0", "value valueTwo")),
        ((*NO_INTEGER, -1, 6), "/syscalls/0/args/0/index"),
        (([],), "/syscalls/0/names"),
        (NAME, "/listenerPath /syscalls/0/names/0"),
        (TEXT, "/listenerMetadata"),
    ],
    "config-vm": [
        (OBJECT, ""),
        (OBJECT, "/hypervisor /kernel /image /hwConfig/iomems/0 /hwConfig/iomems/1"),
        (ARRAY, "/hypervisor/parameters /kernel/parameters " + below("/hwConfig", "dtdevs iomems irqs")),
        (REQUIRED, "/kernel /hypervisor/path /kernel/path /image/path /image/format"),
        (OBJECT, "/hwConfig"),
        (REQUIRED, "/hwConfig/iomems/0/firstMFN /hwConfig/iomems/0/nrMFNs"),
        (ABSOLUTE, "/kernel/path /kernel/initrd /hwConfig/deviceTree"),
        ((*TEXT, "rel", "\n"), "/hypervisor/path /image/path"),
        ((1, None, "banana"), "/image/format"),
        (TEXT, "/hypervisor/parameters/0 /kernel/parameters/0 /hwConfig/dtdevs/0"),
        (UINT32, "/hwConfig/vcpus /hwConfig/irqs/1"),
        (UINT64, "/hwConfig/memory " + below("/hwConfig/iomems/0", "firstGFN firstMFN nrMFNs")),
    ],
    "config-windows": [
        (OBJECT, ""),
        (OBJECT, "/devices/0 /resources /resources/memory /resources/cpu /resources/cpu/affinity/0"),
        (OBJECT, "/resources/storage /network /hyperv"),
        (ARRAY, "/layerFolders /devices /resources/cpu/affinity /network/endpointList /network/DNSSearchList"),
        (REQUIRED, "/layerFolders /devices/0/id /devices/0/idType"),
        (([],), "/layerFolders"),
        (NAME, "/layerFolders/0"),
        (TEXT, "/devices/0/id /devices/0/idType /network/endpointList/0 /network/DNSSearchList/0"),
        (TEXT, below("/network", "networkSharedContainerName networkNamespace") + " /hyperv/utilityVMPath"),
        (UINT64, "/resources/memory/limit /resources/cpu/count /resources/cpu/affinity/0/mask"),
        (UINT64, below("/resources/storage", "iops bps sandboxSize")),
        (UINT32, "/resources/cpu/affinity/0/group"),
        (UINT16, "/resources/cpu/shares /resources/cpu/maximum"),
        (BOOLEAN, "/network/allowUnqualifiedDNSQuery /servicing /ignoreFlushesDuringBoot"),
        ((1, [], None), "/credentialSpec"),
    ],
    "config-solaris": [
        (OBJECT, ""),
        (OBJECT, "/cappedCPU /cappedMemory /anet/0"),
        (ARRAY, "/anet"),
        (TEXT, "/milestone /limitpriv /maxShmMemory /cappedCPU/ncpus /cappedMemory/physical /cappedMemory/swap"),
        (TEXT, below("/anet/0", ANET)),
    ],
    "config-freebsd": [
        (OBJECT, ""),
        (OBJECT, "/devices/0 /jail /jail/allow"),
        (ARRAY, "/devices " + below("/jail", JAIL_LISTS)),
        (REQUIRED, "/devices/0/path"),
        (NAME, "/devices/0/path"),
        (UINT32, "/devices/0/mode"),
        (TEXT, "/jail/parent /jail/interface " + below("/jail", " ".join(f"{each}/0" for each in JAIL_LISTS.split()))),
        (WORD, below("/jail", SHARED)),
        ((*WORD, "disable"), "/jail/host /jail/vnet"),
        ((*NO_INTEGER, -1, 3), "/jail/enforceStatfs"),
        (BOOLEAN, below("/jail/allow", ALLOWED)),
    ],
    "config-zos": [
        (OBJECT, ""),
        (OBJECT, "/namespaces/0 /devices/0"),
        (ARRAY, "/namespaces /devices"),
        (REQUIRED, "/namespaces/0/type " + below("/devices/0", "type path major minor")),
        ((*WORD, "user"), "/namespaces/0/type"),
        (("ipc",), "/namespaces/1/type"),
        (WORD, "/devices/0/type"),
        (ABSOLUTE, "/namespaces/0/path /devices/0/path"),
        (INT64, below("/devices/0", DEVICE_NUMBERS)),
        (UINT32, below("/devices/0", "fileMode uid gid")),
    ],
}
REFUSED: dict[str, list[tuple[Any, str]]] = {
    name: [(value, places) for values, places in table for value in values] for name, table in _TABLES.items()
}
