// `fos names`: the live namespace of mailboxes.

import ArgumentParser
import CFosWire
import FosCommand

struct NamesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "names",
        abstract: "Show the live namespace: the symbolic names of mailboxes and their members.",
        discussion: """
            Every server's mailbox has a symbolic name in the name fleet; a name with several members stands for a \
            fleet. MAILBOX is core:index; LOAD is the length of the member's queue when it was last told.

            Exit status: 0 success; 1 no fos mount, or one that does not answer.
            """)

    @Flag(name: .long, help: "Print JSON.")
    var json = false

    @Argument(help: "Directory on a fos mount. (default: every fos mount of yours)", completion: .directory)
    var directory: String?

    func run() throws {
        let mounts = try selectedMounts(directory)
        guard !mounts.isEmpty else { throw CommandFailure.usage("no fos mounts; make one with: fos mount DIRECTORY") }
        var results: [JSON] = []
        var failed = false
        var shown = 0
        for mount in mounts {
            do throws(CommandFailure) {
                let names = try InstanceClient(uid: mount.userID ?? 0, name: mount.instanceName ?? "").names()
                shown += 1
                if json {
                    results.append(.object([("mount_point", .string(mount.mountPoint)), ("names", .array(names.map(Self.json)))]))
                } else {
                    if mounts.count > 1 { print("\(shellQuoted(mount.mountPoint)):") }
                    for line in Self.table(names).lines { print(line) }
                }
            } catch {
                // Mounts of other users are left out of a list.
                if directory == nil, error == InstanceClient.notPermitted { continue }
                complain("names: \(shellQuoted(mount.mountPoint)): cannot be asked: \(error.description)")
                failed = true
            }
        }
        if json { print(JSON.array(results).text) }
        if failed { throw ExitCode(1) }
        guard shown > 0 else { throw CommandFailure.usage("no fos mount of yours; make one with: fos mount DIRECTORY") }
    }

    private static func address(_ mailbox: fos_mailbox) -> String { "\(mailbox >> 16):\(mailbox & 0xffff)" }

    private static func table(_ names: [NameRecord]) -> TextTable {
        var table = TextTable(heading: ["NAME", "MAILBOX", "EPOCH", "CORE", "LOAD", "STATE", "OWNER"], right: [2, 3, 4, 6])
        for record in names {
            if !record.target.isEmpty {
                table.append([record.name, "-> " + record.target, "", "", "", "", String(record.ownerID)])
            }
            for member in record.members.sorted(by: { $0.mailbox < $1.mailbox }) {
                table.append([
                    record.name, address(member.mailbox), String(member.epoch), String(member.core), String(member.load),
                    member.alive != 0 ? "alive" : "avoided", String(record.ownerID),
                ])
            }
        }
        return table
    }

    private static func json(_ record: NameRecord) -> JSON {
        .object([
            ("name", .string(record.name)), ("target", record.target.isEmpty ? .null : .string(record.target)),
            ("owner_uid", .number(UInt64(record.ownerID))),
            ("members", .array(record.members.map { member in
                .object([
                    ("mailbox", .number(UInt64(member.mailbox))), ("epoch", .number(UInt64(member.epoch))),
                    ("core", .number(UInt64(member.core))), ("load", .number(UInt64(member.load))),
                    ("alive", .bool(member.alive != 0)),
                ])
            })),
        ])
    }
}
