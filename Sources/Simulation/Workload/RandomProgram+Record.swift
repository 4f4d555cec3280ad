// How the random workload reads its answers into the history.

import CFosWire
import Glibc
import Messaging
import Simulator

extension RandomProgram {
    private var history: History { world.history }

    /// The thread's question has been answered.
    func record(_ thread: SimThread) {
        let status = thread.status
        // A server died under it: nobody knows whether it happened, and it may have after all.
        let isUncertain = status == -EIO
        // A lock is lost with its file, and not to be asked for again and again.
        if isUncertain, case .unlock = asked { held = nil }
        if isUncertain, world.deaths.isEmpty {
            return history.recordUnexplained(thread.request.pointee.operation, thread.request.pointee.inode)
        }
        if isUncertain, !world.diedBetween(thread.invoked, thread.returned) { return }
        record(
            thread, status: isUncertain ? 0 : status, invoked: thread.invoked, returned: isUncertain ? .max : thread.returned, isUncertain)
    }

    /// The thread's client has died, maybe with a question under way.
    func abandon(_ thread: SimThread) {
        isAbandoned = true
        if let held {
            history.record(.allGone(owner: owner), of: held.file, invoked: thread.host.time, returned: .max, thread: identity)
        }
        held = nil
    }

    /// The run is over. What a dead client asked and no server has answered may have happened or not.
    func concludeAbandoned(_ thread: SimThread) {
        if isAbandoned, thread.hasAsked { recordUncertain(thread) }
    }

    func recordUncertain(_ thread: SimThread) { record(thread, status: 0, invoked: thread.invoked, returned: .max, true) }

    private func record(_ thread: SimThread, status: Int32, invoked: UInt64, returned: UInt64, _ isUncertain: Bool) {
        switch asked {
        case .nothing: break
        case .make, .lookup, .link, .unlink, .removeDirectory, .rename:
            recordName(thread, status: status, invoked: invoked, returned: returned, isUncertain)
        case .attributes(let inode):
            guard !isUncertain else { break }
            let attributes = thread.attributes
            if status == 0 { cache?.keep(attributes) }
            recordAttributes(attributes, of: inode, status: status, invoked: invoked, returned: returned)
        case .list(let directory, let cookie): if !isUncertain, status == 0 { recordListing(thread, directory, after: cookie) }
        case .write(let file, let word, let value):
            recordFile(.write(word: word, value: value, status: status), of: file, status, invoked, returned, isUncertain)
        case .append(let file, let value):
            if isUncertain { recordFile(.append(word: -1, value: value, status: 0), of: file, 0, invoked, returned, true) }
            guard !isUncertain, status == 0, let reply = thread.replied(fos_io_reply.self) else { break }
            recordFile(.append(word: Int(reply.offset / 8), value: value, status: status), of: file, status, invoked, returned, false)
        case .read(let file):
            guard !isUncertain, status == 0, let reply = thread.replied(fos_io_reply.self) else { break }
            let count = Int(thread.reply.pointee.bulk_length) / 8
            let words = (0..<count).map { thread.bulk.load(fromByteOffset: $0 * 8, as: UInt64.self) }
            recordFile(.read(words: words, size: reply.size, status: 0), of: file, status, invoked, returned, false)
        case .truncate(let file, let size):
            recordFile(.truncate(size: size, status: status), of: file, status, invoked, returned, isUncertain)
        case .changeMode(let file, let mode):
            recordFile(.changeMode(mode, status: status), of: file, status, invoked, returned, isUncertain)
        case .lock, .unlock: recordLock(status: status, invoked: invoked, returned: returned, isUncertain)
        }
    }

    private func recordName(_ thread: SimThread, status: Int32, invoked: UInt64, returned: UInt64, _ isUncertain: Bool) {
        let operation: TreeOperation
        switch asked {
        case .make(let directory, let name, let isDirectory, let opensExisting):
            let inode = status == 0 && !isUncertain ? thread.attributes.inode : 0
            let isNew = !opensExisting || thread.reply.pointee.flags & UInt16(FOS_CREATED.rawValue) != 0
            // Which number an unanswered creation got is learnt by who finds it, if anybody does: no model knows it before.
            guard !isUncertain else {
                return world.uncertainCreation(directory, name, isDirectory: isDirectory, at: invoked, thread: identity)
            }
            operation = .make(
                directory: directory, name: name, isDirectory: isDirectory, opensExisting: opensExisting, status: status, inode: inode,
                isNew: isNew)
            guard status == 0 else { break }
            world.learn(inode, isDirectory: isDirectory)
            cache?.keep(thread.attributes)
            if isNew, !isDirectory {
                history.recordBirth(of: inode)
                history.record(
                    .born(mode: thread.attributes.mode & 0o7777), of: inode, invoked: invoked, returned: returned, thread: identity)
            }
        case .lookup(let directory, let name, let epoch):
            guard !isUncertain else { return }
            let inode = status == 0 ? thread.attributes.inode : 0
            operation = .lookup(directory: directory, name: name, status: status, inode: inode)
            if status == 0 || status == -ENOENT { cache?.keepMeaning(directory, name, inode, epoch: epoch) }
            if status == 0 {
                cache?.keep(thread.attributes)
                world.learn(inode, isDirectory: thread.attributes.mode & 0o170000 == 0o040000)
            }
        case .link(let target, let directory, let name): operation = .link(target: target, directory: directory, name: name, status: status)
        case .unlink(let directory, let name): operation = .unlink(directory: directory, name: name, status: status)
        case .removeDirectory(let directory, let name): operation = .removeDirectory(directory: directory, name: name, status: status)
        case .rename(let directory, let old, let newDirectory, let new, let flags):
            operation = .rename(directory: directory, old: old, newDirectory: newDirectory, new: new, flags: flags, status: status)
            guard isUncertain, flags == 0, world.losesFiles else { break }
            // Its coordinator may have died between taking the victim and giving its name to the source.
            for rest in [
                TreeOperation.unlink(directory: newDirectory, name: new, status: 0),
                .removeDirectory(directory: newDirectory, name: new, status: 0),
            ] { history.record(.uncertain(rest), invoked: invoked, returned: .max, thread: identity) }
        default: return
        }
        history.record(isUncertain ? .uncertain(operation) : operation, invoked: invoked, returned: returned, thread: identity)
    }

    func recordAttributes(_ attributes: fos_attributes, of inode: UInt64, status: Int32, invoked: UInt64, returned: UInt64) {
        let isDirectory = attributes.mode & 0o170000 == 0o040000
        history.record(
            .attributes(inode: inode, status: status, isDirectory: isDirectory, links: attributes.links), invoked: invoked,
            returned: returned,
            thread: identity)
        // Those of a sharded directory are exact for who asks for them.
        guard status == 0, attributes.flags & FOS_ATTRIBUTES_INEXACT.rawValue == 0 else { return }
        let changed = UInt64(attributes.changed.seconds - SimHost.epochSeconds) * 1_000_000_000 + UInt64(attributes.changed.nanoseconds)
        history.recordTime(of: inode, at: invoked, changed: changed)
        guard !isDirectory else { return }
        history.record(
            .attributes(size: attributes.size, mode: attributes.mode & 0o7777, status: 0), of: inode, invoked: invoked, returned: returned,
            thread: identity)
    }

    private func recordFile(
        _ operation: FileOperation, of file: UInt64, _ status: Int32, _ invoked: UInt64, _ returned: UInt64, _ isUncertain: Bool
    ) {
        // Gone, or a directory has its number now: nothing has happened to the file.
        guard status == 0 else { return }
        history.record(isUncertain ? .uncertain(operation) : operation, of: file, invoked: invoked, returned: returned, thread: identity)
        if case .read = operation { return }
        // A truncation to the size that a file already has changes nothing.
        if case .truncate = operation { return }
        if !isUncertain { history.recordChange(of: file, begun: invoked, known: returned) }
    }

    private func recordLock(status: Int32, invoked: UInt64, returned: UInt64, _ isUncertain: Bool) {
        switch asked {
        case .lock(let file, let unit, let isExclusive):
            guard !isUncertain else {
                // Should it have been granted, it went with its client.
                history.record(
                    .lock(unit: unit, owner: owner, isExclusive: isExclusive, status: 0), of: file, invoked: invoked, returned: .max,
                    thread: identity)
                history.record(.allGone(owner: owner), of: file, invoked: invoked, returned: .max, thread: identity)
                return
            }
            guard status == 0 || status == -EAGAIN else { return }
            history.record(
                .lock(unit: unit, owner: owner, isExclusive: isExclusive, status: status), of: file, invoked: invoked, returned: returned,
                thread: identity)
            if status == 0 { held = (file, unit) }
        case .unlock(let file, let unit):
            held = nil
            history.record(.unlock(unit: unit, owner: owner), of: file, invoked: invoked, returned: returned, thread: identity)
        default: break
        }
    }

    /// A listing says of each name whether it was there, if nothing changed it meanwhile.
    private func recordListing(_ thread: SimThread, _ directory: UInt64, after cookie: UInt64) {
        if cookie == 0 { listing = ([:], thread.invoked) }
        var found: Set<Int> = []
        var offset = 0
        var last: UInt64?
        let count = Int(thread.reply.pointee.bulk_length)
        let fixed = MemoryLayout<fos_directory_entry>.size
        while offset + fixed <= count {
            let entry = (thread.bulk.baseAddress! + offset).load(as: fos_directory_entry.self)
            let bytes = UnsafeRawBufferPointer(start: thread.bulk.baseAddress! + offset + fixed, count: Int(entry.name_length))
            if let name = World.number(ofName: bytes) {
                if !found.insert(name).inserted {
                    history.recordDoubledName(directory, name, invoked: thread.invoked, returned: thread.returned)
                }
                listing.found[name] = listing.found[name] ?? entry.inode
            }
            offset += Int(entry.record_length)
            last = entry.next
        }
        if let last { return script.append(.list(directory, after: last)) }
        for name in 0..<world.mix.names {
            history.recordMeaning(
                directory: directory, name: name, inode: listing.found[name] ?? 0, invoked: listing.begun, returned: thread.returned,
                thread: identity)
        }
    }
}
