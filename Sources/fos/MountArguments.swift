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
            "Name of the instance, shown in the mount table and by 'fos status'. (default: from the directory's name)",
            valueName: "name"))
    var name: String?

    @Option(
        name: .long,
        help: ArgumentHelp("What goes into the log: \(MountRequest.logLevels.joined(separator: ", ")). (default: notice)", valueName: "level"),
        completion: .list(MountRequest.logLevels))
    var logLevel: String?

    @Flag(name: .long, help: "Let other users use the mount (ordinary users need user_allow_other in /etc/fuse.conf).")
    var allowOther = false

    @Option(
        name: .customShort("o"), parsing: .singleValue,
        help: ArgumentHelp(
            "Mount options, comma separated; may be given several times.",
            discussion: """
                size=SIZE, cpus=1+4-7 ('+' for ','), name=NAME, log_level=LEVEL, allow_other as above; \
                locks=kernel (default: file locks are kept by this machine's kernel) or locks=fleet (by the file \
                servers, so that every client of the instance meets them); shards=N (directories of N entries and more are \
                spread over the file servers; 0: never; default: 4096 where fos has several cores); nonempty (mount on a directory that is \
                not empty); ro, nosuid, nodev, noexec, noatime, nodiratime, sync, dirsync and their opposites.
                """,
            valueName: "options"))
    var options: [String] = []

    @Argument(help: "Directory to mount on.", completion: .directory)
    var directory: String

    func request() throws(CommandFailure) -> MountRequest {
        var parsed = MountOptions()
        for text in options { try parsed.read(text) }
        return try MountRequest(
            directory: directory, name: name, cpus: cpus, size: size, logLevel: logLevel, allowOther: allowOther, options: parsed,
            memory: physicalMemory())
    }
}
