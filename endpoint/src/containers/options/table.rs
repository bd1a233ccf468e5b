//! Every field that Docker's description of the API has: refused, or taken.

/// Fields that are refused unless they have their default, by what to do instead: field, the
/// client's option.
pub(super) const REFUSED: &[(&str, &[(&str, &str)])] = &[
    (
        "use --cpus, which takes parts of a CPU, too",
        &[("CpuShares", "--cpu-shares")],
    ),
    (
        "each container is a VM with cgroups of its own",
        &[("CgroupParent", "--cgroup-parent"), ("Cgroup", "Cgroup")],
    ),
    (
        "a VM has its disks to itself, and vSphere shares out the storage; leave it out",
        &[
            ("BlkioWeight", "--blkio-weight"),
            ("BlkioWeightDevice", "--blkio-weight-device"),
            ("BlkioDeviceReadBps", "--device-read-bps"),
            ("BlkioDeviceWriteBps", "--device-write-bps"),
            ("BlkioDeviceReadIOps", "--device-read-iops"),
            ("BlkioDeviceWriteIOps", "--device-write-iops"),
        ],
    ),
    (
        "the guest's kernel has no groups of real-time processes; leave it out",
        &[
            ("CpuRealtimePeriod", "--cpu-rt-period"),
            ("CpuRealtimeRuntime", "--cpu-rt-runtime"),
        ],
    ),
    (
        "a VM has one memory node; leave it out",
        &[("CpusetMems", "--cpuset-mems")],
    ),
    (
        "a container that has used up its VM's memory would stand still for ever; use --memory, and --oom-score-adj for which process goes first",
        &[("OomKillDisable", "--oom-kill-disable")],
    ),
    (
        "use --cpus: the VM has only the CPUs it was given",
        &[("CpusetCpus", "--cpuset-cpus")],
    ),
    (
        "a container VM has no device of the host",
        &[
            ("Devices", "--device"),
            ("DeviceCgroupRules", "--device-cgroup-rule"),
            ("DeviceRequests", "--gpus"),
        ],
    ),
    (
        "the VM has the memory that it was given; use --memory",
        &[
            ("KernelMemory", "--kernel-memory"),
            ("KernelMemoryTCP", "KernelMemoryTCP"),
        ],
    ),
    (
        "it is for Windows",
        &[
            ("CpuPercent", "CpuPercent"),
            ("IOMaximumIOps", "IOMaximumIOps"),
            ("IOMaximumBandwidth", "IOMaximumBandwidth"),
        ],
    ),
    (
        "the container's processes are in a VM of their own",
        &[("PidMode", "--pid")],
    ),
    (
        "the container's host name is its VM's",
        &[("UTSMode", "--uts")],
    ),
    (
        "the container's users are its VM's",
        &[("UsernsMode", "--userns")],
    ),
    (
        "what it opens is not settled; use --cap-add for single capabilities",
        &[("Privileged", "--privileged")],
    ),
    (
        "the disk has the size of the image store",
        &[("StorageOpt", "--storage-opt")],
    ),
];

/// A refused field: the client's option, and what to do instead.
pub(super) fn refusal(field: &str) -> Option<(&'static str, &'static str)> {
    REFUSED.iter().find_map(|(advice, fields)| {
        let (_, option) = fields.iter().find(|(name, _)| *name == field)?;
        Some((*option, *advice))
    })
}

/// Fields whose value needs a look, or that mean something to the client alone.
pub(super) const TAKEN: &[&str] = &[
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "NanoCpus",
    "CpuCount",
    "CpuPeriod",
    "CpuQuota",
    "PidsLimit",
    "OomScoreAdj",
    "Sysctls",
    "Ulimits",
    "SecurityOpt",
    "Tmpfs",
    "Mounts",
    "Init",
    "ContainerIDFile",
    "LogConfig",
    "NetworkMode",
    "PortBindings",
    "PublishAllPorts",
    "Links",
    "RestartPolicy",
    "AutoRemove",
    "ConsoleSize",
    "Annotations",
    "CapAdd",
    "CapDrop",
    "CgroupnsMode",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IpcMode",
    "ReadonlyRootfs",
    "ShmSize",
    "Binds",
    "Mounts",
    "VolumesFrom",
    "VolumeDriver",
    "Runtime",
    "Isolation",
    "MaskedPaths",
    "ReadonlyPaths",
];

/// Fields of `ContainerConfig` that are taken (see [`crate::containers::config::Config`]).
pub(super) const CONFIG_TAKEN: &[&str] = &[
    "Hostname",
    "Domainname",
    "User",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "ExposedPorts",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Env",
    "Cmd",
    "ArgsEscaped",
    "Image",
    "WorkingDir",
    "Entrypoint",
    "NetworkDisabled",
    "MacAddress",
    "OnBuild",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Shell",
    "HostConfig",
    "NetworkingConfig",
    "Healthcheck",
    "Volumes",
    // Parameters of the query that dockerode repeats in the body; they count there.
    "name",
    "platform",
    // docker-java's own, the credentials of the image's registry: read by nobody, kept nowhere.
    "authConfig",
];
