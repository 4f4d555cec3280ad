// Sharded directories whose servers crash and come back with their stores, at every moment of what is done to all shards at once.

import CFosWire
import FileService
import Glibc
import Simulation
import Simulator
import Testing

@Suite struct ShardStoreTests {
    /// Of the directory's owner, of a server that has nothing but a shard of it, and of the root's.
    static let victims = [2, 3, 1]
    /// After the request was sent, ps: longer than each of them takes.
    static let moments = stride(from: VirtualTime(0), to: 3_600_000, by: 60_000)

    /// Four servers, and a directory of member 2's with so many names: from 4 on it has a shard at each server.
    private func machine(names: Int) -> (DeathMachine, UInt64) {
        let machine = DeathMachine(hasStores: true, servers: 4, shards: 4)
        let directory = machine.directory(of: 2)
        for name in 0..<names { #expect(machine.call { $0.create(directory, "n\(name)", exclusive: true) }.status == 0) }
        return (machine, directory)
    }

    private func check(_ machine: DeathMachine, _ moment: VirtualTime) {
        machine.check()
        let servers = machine.fleets.files.compactMap { machine.host.server(at: $0) as? any InspectableFileServer }
        let violations = Census(of: servers, pages: nil, isWhole: true).violations
        #expect(violations.isEmpty, "crash after \(moment) ps: \(violations)")
    }

    /// The names of a listing's answer, and the cookie that it goes on from.
    private func records(in thread: SimThread) -> (names: [String], next: UInt64) {
        var (names, next, at) = ([String](), UInt64(0), 0)
        while at < Int(thread.reply.pointee.bulk_length) {
            let entry = thread.bulk.load(fromByteOffset: at, as: fos_directory_entry.self)
            let name = thread.bulk[(at + MemoryLayout<fos_directory_entry>.size)...].prefix(Int(entry.name_length))
            names.append(String(decoding: name, as: UTF8.self))
            next = entry.next
            at += Int(entry.record_length)
        }
        return (names, next)
    }

    /// Records of entries of a directory, and their modes.
    private func shards(of directory: UInt64, _ machine: DeathMachine) -> [UInt32] {
        var modes: [UInt32] = []
        for address in machine.fleets.files {
            (machine.host.server(at: address) as? any InspectableFileServer)?.forEachInode {
                if $0.isShard, $0.parent == directory { modes.append($0.mode) }
            }
        }
        return modes
    }

    @Test(arguments: victims) func aDirectoryIsSpreadWhoeverCrashes(victim: Int) {
        for moment in ShardStoreTests.moments {
            let (machine, directory) = machine(names: 3)
            machine.crash(victim, after: moment)
            let status = machine.call { $0.create(directory, "n3", exclusive: true) }.status
            #expect(status == 0 || (status == -EIO && victim == 2), "crash after \(moment) ps")
            if status != 0 { machine.call { $0.create(directory, "n3") } }
            for name in 4..<12 { #expect(machine.call { $0.create(directory, "n\(name)", exclusive: true) }.status == 0) }
            #expect(machine.host.board.shardBits(of: directory) == 2 && shards(of: directory, machine).count == 3)
            for name in 0..<12 {
                let made = machine.call { $0.lookup(directory, "n\(name)") }
                #expect(made.status == 0, "n\(name), crash after \(moment) ps")
                #expect(machine.call { $0.create(directory, "n\(name)") } == made)
            }
            check(machine, moment)
        }
    }

    @Test(arguments: victims) func aChangeOfAttributesReachesAllShardsOrNone(victim: Int) {
        for moment in ShardStoreTests.moments {
            let (machine, directory) = machine(names: 8)
            machine.crash(victim, after: moment)
            let status = machine.call { $0.changeMode(directory, 0o750) }.status
            #expect(status == 0 || status == -EIO, "crash after \(moment) ps")
            machine.call { $0.getAttributes(directory) }
            let mode = machine.thread.attributes.mode
            #expect(mode & 0o7777 == 0o750 || (status != 0 && mode & 0o7777 == 0o777), "crash after \(moment) ps")
            #expect(shards(of: directory, machine) == [mode, mode, mode], "crash after \(moment) ps")
            for name in 8..<16 { #expect(machine.call { $0.create(directory, "n\(name)", exclusive: true) }.status == 0) }
            #expect(machine.call { $0.changeMode(directory, 0o711) }.status == 0)
            check(machine, moment)
        }
    }

    @Test(arguments: victims) func aRemovedDirectoryLeavesNoShard(victim: Int) {
        for moment in ShardStoreTests.moments {
            let (machine, directory) = machine(names: 8)
            var name = ""
            for number in 0..<12 where machine.call({ $0.lookup(1, "d2-\(number)") }).inode == directory { name = "d2-\(number)" }
            for name in 0..<8 { #expect(machine.call { $0.unlink(directory, "n\(name)") }.status == 0) }
            machine.crash(victim, after: moment)
            let status = machine.call { $0.removeDirectory(1, name) }.status
            #expect(status == 0 || status == -EIO, "crash after \(moment) ps")
            let isThere = machine.call { $0.lookup(1, name) }.status == 0
            #expect(!isThere || status != 0)
            // What was undone is as it was.
            if isThere {
                for name in 0..<8 { #expect(machine.call { $0.create(directory, "m\(name)", exclusive: true) }.status == 0) }
                for name in 0..<8 { #expect(machine.call { $0.unlink(directory, "m\(name)") }.status == 0) }
                #expect(machine.call { $0.removeDirectory(1, name) }.status == 0)
            }
            #expect(shards(of: directory, machine).isEmpty, "crash after \(moment) ps")
            check(machine, moment)
        }
    }

    /// A listing that had begun goes on where it was.
    @Test(arguments: victims) func placesInAListingOutliveACrash(victim: Int) {
        let (machine, directory) = machine(names: 16)
        func list(after cookie: UInt64) -> (names: [String], next: UInt64) {
            machine.call {
                $0.readDirectory(directory, cookie: cookie)
                $0.request.pointee.bulk_length = 512
            }
            return records(in: machine.thread)
        }
        let first = list(after: 0)
        machine.host.crash(machine.fleets.files[victim])
        machine.restore(victim)
        machine.host.run()
        var names = first.names
        var next = first.next
        while case let more = list(after: next), !more.names.isEmpty {
            names += more.names
            next = more.next
        }
        #expect(names.count == 18 && Set(names).count == 18, "\(names)")
        check(machine, 0)
    }
}
