// `fos fleet`: the servers that share the files of a mount, and how many there are to be.

import ArgumentParser
import FosCommand
import Glibc

struct FleetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fleet",
        abstract: "Show the file fleet of a mount, or set how many servers it has, while it serves.",
        discussion: """
            Each file server owns some of 4,096 slots of inodes. A fleet grows and shrinks by moving slots, inode by inode, while \
            requests keep flowing; 'fos fleet --file N' returns when all are moved, and says how long it took, how many requests \
            were passed on to another server meanwhile, and how many were told to try again. WAIT is how long requests waited for \
            a server, on average over the last interval.

            Without a number of its own, the size is chosen by waiting times within 'fos mount --servers MIN-MAX'.

            Only the file fleet changes its size. Name servers are two, each with a copy of every name, the privilege server and the \
            fleet manager are one each, and memory servers are as many as there are cores.

            Exit status: 0 success; 1 no fos mount, one that does not answer or is another user's, or a size out of bounds.
            """)

    @Option(name: .long, help: ArgumentHelp("Number of file servers; 'auto' leaves it to the fleet manager.", valueName: "n"))
    var file: String?

    @Flag(name: .long, help: "Print JSON.")
    var json = false

    @Argument(help: "Directory on a fos mount. (default: your only fos mount)", completion: .directory)
    var directory: String?

    func run() throws {
        let mounts = try selectedMounts(directory)
        guard let mount = mounts.first else { throw CommandFailure.usage("no fos mounts; make one with: fos mount DIRECTORY") }
        guard mounts.count == 1 else { throw CommandFailure.usage("there are \(mounts.count) fos mounts; name a directory on one of them") }
        do throws(CommandFailure) {
            let client = try InstanceClient(uid: mount.userID ?? 0, name: mount.instanceName ?? "")
            if let file { try set(file, client) }
            show(try client.fleet())
        } catch {
            throw CommandFailure.usage("\(shellQuoted(mount.mountPoint)): \(error.description)")
        }
    }

    private func set(_ text: String, _ client: InstanceClient) throws(CommandFailure) {
        let before = try client.fleet()
        let wanted: Int
        if text == "auto" {
            wanted = 0
        } else {
            guard let number = Int(text), number >= 1, number <= Int(before.summary.maximum) else {
                throw .usage(
                    "bad number of file servers '\(text)'; give 1 to \(before.summary.maximum), or auto (fos mount --servers MIN-MAX sets the bounds)"
                )
            }
            wanted = number
        }
        try client.setFleet(members: wanted)
        // The last of the change is polled; it takes milliseconds for small trees, seconds for gigabytes.
        while try client.fleet().isChanging { usleep(5_000) }
    }

    private func show(_ fleet: FleetStatus) {
        if json { return print(fleet.json.text) }
        print(fleet.sizes)
        if let change = fleet.change { print(change) }
        for line in fleet.table.lines { print(line) }
    }
}
