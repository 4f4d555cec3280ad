// `fos status`: the mounts, and how each does.

import ArgumentParser
import FosCommand
import Glibc

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show the fos mounts and how they do.",
        discussion: """
            Without DIRECTORY: one line for each fos mount; those of other users show what the system tells of them. With \
            it: all about the mount that DIRECTORY lies on, and a line for each of its servers. REQUESTS are those that the servers took in since the mount; CLIENTS are the \
            connected processes besides the mount itself; MEMORY is the daemon's resident set.

            Exit status: 0 all is well (also with no mount); 1 a mount does not answer, or DIRECTORY is not on a fos mount.
            """)

    @Flag(name: .long, help: "Print JSON: an array with an object for each mount.")
    var json = false

    @Argument(help: "Directory on a fos mount.", completion: .directory)
    var directory: String?

    func run() throws {
        let mounts = try selectedMounts(directory)
        let all = mounts.map { InstanceStatus(of: $0) }
        if json {
            print(JSON.array(all.map(\.json)).text)
        } else if directory != nil {
            for status in all { printDetails(status) }
        } else if all.isEmpty {
            print("no fos mounts; make one with: fos mount DIRECTORY")
        } else {
            printTable(all)
        }
        // In a list, mounts of other users are no reason to complain.
        let silent = all.filter { $0.unreachable != nil && (directory != nil || !$0.isForbidden) }
        for status in silent { complain("status: \(shellQuoted(status.mount.mountPoint)): cannot be asked: \(status.unreachable ?? "")") }
        if !silent.isEmpty { throw ExitCode(1) }
    }

    private func printTable(_ all: [InstanceStatus]) {
        var table = TextTable(
            heading: ["MOUNT", "NAME", "PID", "CPUS", "SERVERS", "CLIENTS", "REQUESTS", "MEMORY", "INODES", "USED", "SIZE", "UP"],
            right: [2, 4, 5, 6, 7, 8, 9, 10, 11])
        for status in all {
            let reachable = status.unreachable == nil
            func known(_ text: String) -> String { reachable ? text : "-" }
            table.append([
                shellQuoted(status.mount.mountPoint), status.name, status.pid.map { String($0) } ?? "-",
                known(CPUList(status.cpus.filter { $0 >= 0 }).text), known(String(status.servers.count)),
                known(grouped(status.clients)), known(grouped(status.requests)),
                status.residentBytes.map { ByteSize(bytes: $0).text } ?? "-", known(grouped(status.inodes)),
                known(ByteSize(bytes: status.usedBytes).text), known(ByteSize(bytes: status.sizeBytes).text),
                status.uptimeSeconds.map { duration(seconds: $0) } ?? "-",
            ])
        }
        for line in table.lines { print(line) }
    }

    private func printDetails(_ status: InstanceStatus) {
        func line(_ key: String, _ value: String?) {
            if let value { print(key + String(repeating: " ", count: 10 - key.count) + value) }
        }
        line("mount", shellQuoted(status.mount.mountPoint))
        line("name", status.name)
        line("daemon", status.pid.map { "pid \($0)" + (status.uptimeSeconds.map { ", up " + duration(seconds: $0) } ?? "") })
        line("memory", status.residentBytes.map { ByteSize(bytes: $0).text + " resident" })
        line("log", status.logPath)
        guard status.unreachable == nil else { return }
        line("cores", status.cpus.enumerated().map { "core \($0) on " + ($1 < 0 ? "any CPU" : "CPU \($1)") }.joined(separator: ", "))
        line("servers", status.serverCounts)
        line("clients", grouped(status.clients))
        line("requests", grouped(status.requests))
        line("files", "\(grouped(status.inodes)) inodes, \(ByteSize(bytes: status.usedBytes).text) of \(ByteSize(bytes: status.sizeBytes).text) used")
        line("pages", status.memory?.text)
        print("")
        var table = TextTable(
            heading: ["SERVER", "CORE", "REQUESTS", "FORWARDED", "RETRIED", "ERRORS", "SENT", "QUEUE PEAK", "WAITING", "INODES", "LOCKS", "REVOKED"],
            right: Set(1...11))
        for server in status.servers {
            let s = server.statistics
            table.append([
                server.name, String(s.core), grouped(s.requests), grouped(s.forwards), grouped(s.retries), grouped(s.errors),
                grouped(s.sent), grouped(s.queue_peak), grouped(s.continuations_now), grouped(s.inodes), grouped(s.locks),
                grouped(s.leases_revoked),
            ])
        }
        for line in table.lines { print(line) }
    }
}

/// The mount that a path lies on, or all fos mounts.
func selectedMounts(_ directory: String?) throws(CommandFailure) -> [MountEntry] {
    let table = MountTable.current()
    guard let directory else { return table.fosMounts }
    let path = canonicalMountPath(directory, in: table)
    guard let entry = table.mount(containing: path), entry.instanceName != nil else {
        throw .usage("\(shellQuoted(directory)): not on a fos mount; 'fos status' lists the fos mounts")
    }
    return [entry]
}
