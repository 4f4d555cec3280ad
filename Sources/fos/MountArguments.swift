// The arguments of a mount, shared by `fos mount` and by the processes that it starts.

import ArgumentParser
import FosCommand

struct MountArguments: ParsableArguments {
    @Option(
        name: .long,
        help: ArgumentHelp(
            "CPUs that fos may use, as in 1,4-7. By default fos leaves at least one CPU to programs.", valueName: "list"))
    var cpus: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Most that files and their metadata may take: bytes, or with K, M, G, T, or a percentage of memory. (default: 50%)",
            valueName: "size"))
    var size: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Most memory that programs under 'fos run --memory' may have from this mount, in the form of --size. (default: 25%)", valueName: "size"))
    var memory: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Memory that is kept zeroed for them, from the first that asks on; what is free beyond it goes back to Linux. (default: a sixteenth of --memory)",
            valueName: "size"))
    var memoryReserve: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Name of the instance, shown in the mount table and by 'fos status'. (default: from the directory's name)",
            valueName: "name"))
    var name: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "What goes into the log, each with all that follow it: trace (each request of the kernel), debug (clients that come and go), info (cores, settings, counts at the end), notice, warning, error, critical. (default: notice)",
            valueName: "level"),
        completion: .list(MountRequest.logLevels))
    var logLevel: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "File servers: how many at the start, and how many the fleet may grow to while requests wait. (default: one for each of fos's CPUs, at least 2; 'fos fleet' may set up to twice as many)",
            valueName: "min-max"))
    var servers: String?

    @Flag(name: .long, help: "Let other users use the mount (ordinary users need user_allow_other in /etc/fuse.conf).")
    var allowOther = false

    @Option(
        name: .customShort("o"), parsing: .singleValue,
        help: ArgumentHelp(
            "Mount options, comma separated; may be given several times.",
            discussion: """
                size=SIZE, memory=SIZE, memory_reserve=SIZE, cpus=1+4-7 ('+' for ','), name=NAME, log_level=LEVEL, servers=MIN-MAX, \
                allow_other as above; \
                locks=kernel (default: file locks are kept by this machine's kernel) or locks=fleet (by the file \
                servers, so that every client of the instance meets them); shards=N (directories of N entries and more are \
                spread over the file servers; 0: never; default 4096 with 4 file servers and 4 cores or more, else never); nonempty (mount on a directory that is not empty); ro, nosuid, nodev, noexec, noatime, nodiratime, sync, dirsync and their opposites.
                """,
            valueName: "options"))
    var options: [String] = []

    @Argument(help: "Directory to mount on.", completion: .directory)
    var directory: String

    func request() throws(CommandFailure) -> MountRequest {
        var parsed = MountOptions()
        for text in options { try parsed.read(text) }
        return try MountRequest(
            directory: directory, name: name, cpus: cpus, size: size, memory: memory, reserve: memoryReserve, logLevel: logLevel,
            allowOther: allowOther, servers: servers, options: parsed, physicalMemory: physicalMemory())
    }
}
