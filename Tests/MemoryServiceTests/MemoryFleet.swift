// A memory fleet in the loop host, and clients that check every frame they are given.
//
// Invariants checked with each grant: the frames are zeros, are nobody else's, and lie in a region that no other client has
// a descriptor of. Each frame is poisoned at once, so that whatever is given out unzeroed is found.

import CFosWire
import Glibc
import LoopKernel
@testable import MemoryService
import Messaging
import Testing

final class MemoryFleet {
    let host: LoopHost
    let addresses: [MailboxAddress]
    let options: MemoryOptions
    let seed: UInt64
    var people: [Person] = []
    /// Frames that a client has: which, by their address.
    var owners: [UInt: UInt32] = [:]

    init(members: Int, options: MemoryOptions, seed: UInt64 = 1, _ change: (inout LoopOptions) -> Void = { _ in }) {
        var loop = LoopOptions(seed: seed)
        change(&loop)
        host = LoopHost(loop)
        self.options = options
        self.seed = seed
        let addresses = (0..<members).map { MailboxAddress(core: $0, index: 1) }
        self.addresses = addresses
        for member in 0..<members { host.add(MemoryServer(member: member, members: addresses, options: options), at: addresses[member]) }
    }

    func addPerson() -> Person {
        let person = Person(self)
        people.append(person)
        return person
    }

    func statistics(_ member: Int) -> fos_memory_statistics {
        let reply = try? host.kernelCall(LoopCall(FOS_OP_MEMORY_STATISTICS), to: addresses[member])
        return reply.map { loopFixed($0.payload) } ?? fos_memory_statistics()
    }

    /// Lets everything come to rest: idle work to its end, and ticks for so many milliseconds.
    func rest(milliseconds: Int = 0) {
        for _ in 0...milliseconds / 10 {
            repeat { host.runUntilQuiet() } while host.idle()
            if milliseconds > 0 { host.tick() }
        }
        repeat { host.runUntilQuiet() } while host.idle()
    }

    /// Frames are lost nowhere, counted nowhere twice, and whole regions join.
    func check(_ comment: String = "") {
        var limits = 0
        for address in addresses {
            host.withServer(address, as: MemoryServer.self) { server in
                limits += server.limit
                var charged = 0
                server.forEachRegion { region in
                    let r = region.pointee
                    let sum = r.zeroed.freeFrames + r.dirty.freeFrames + r.absent.freeFrames + r.granted
                    #expect(sum == r.frames, "seed \(seed): a region of \(r.frames) frames accounts for \(sum) \(comment)")
                    if r.state != .servers { charged += r.memory.bytes }
                    if r.isWhollyZeroed {
                        #expect(r.zeroed.largestOrder == r.frames.trailingZeroBitCount, "seed \(seed): free frames that do not join")
                    }
                    #expect(r.state != .unbound || r.granted == 0)
                }
                #expect(
                    charged == server.charged && charged <= server.limit,
                    "seed \(seed): \(charged), \(server.charged) of \(server.limit) \(comment)")
            }
        }
        #expect(limits == options.limitBytes * addresses.count, "seed \(seed): the limit is \(limits)")
        #expect(host.violations.isEmpty, "\(host.violations)")
    }
}

/// A client, with what it was granted.
final class Person {
    unowned let fleet: MemoryFleet
    let client: LoopClient
    var extents: [fos_memory_extent] = []
    /// Regions it has a descriptor of, by token.
    var regions: [UInt64: SharedRegion] = [:]
    /// Those it keeps after they are retired.
    var kept: [SharedRegion] = []
    private var seen = 0

    init(_ fleet: MemoryFleet) {
        self.fleet = fleet
        client = fleet.host.addClient(uid: 1000)
    }

    /// Takes the descriptors that have come.
    private func receive() {
        for (index, handed) in fleet.host.handedOut.enumerated().dropFirst(seen) where handed.client == client.index {
            seen = index + 1
            if regions[handed.token] != nil { letGo(handed.region) } else { regions[handed.token] = handed.region }
            for other in fleet.people where other !== self {
                let theirs = Array(other.regions.values) + other.kept
                #expect(!theirs.contains { $0.handle == handed.region.handle }, "seed \(fleet.seed): a region that another client has")
            }
        }
    }

    func letGo(_ region: SharedRegion) { fleet.host.grips[region.handle, default: 0] -= 1 }

    /// Asks for bytes; checks and poisons what is given. The status.
    @discardableResult
    func allocate(_ bytes: Int, frame: Int = 4096, at member: Int = 0) throws -> Int32 {
        let request = fos_memory_request(bytes: UInt64(bytes), frame_bytes: UInt32(frame), reserved: 0)
        let reply = try client.call(LoopCall(FOS_OP_MEMORY_ALLOCATE, request), to: fleet.addresses[member])
        guard reply.status == 0 else { return reply.status }
        receive()
        let grant: fos_memory_grant = reply.fixed()
        var sum: UInt64 = 0
        #expect(grant.extents > 0 && grant.address == 0)
        for index in 0..<Int(grant.extents) {
            let extent: fos_memory_extent = reply.fixed(
                at: MemoryLayout<fos_memory_grant>.size + index * MemoryLayout<fos_memory_extent>.size)
            sum += extent.bytes
            let region = try #require(regions[extent.token], "seed \(fleet.seed): an extent of a region whose descriptor has not come")
            let base = region.base + Int(extent.offset)
            #expect(Int(extent.bytes) % frame == 0 && extent.bytes > 0 && extent.offset + extent.bytes <= UInt64(region.bytes))
            #expect(
                UnsafeRawBufferPointer(start: base, count: Int(extent.bytes)).allSatisfy { $0 == 0 },
                "seed \(fleet.seed): memory that is not zeros")
            for offset in stride(from: 0, to: Int(extent.bytes), by: 4096) {
                let before = fleet.owners.updateValue(client.index, forKey: UInt(bitPattern: base) + UInt(offset))
                #expect(before == nil, "seed \(fleet.seed): a frame of client \(before ?? 0) is granted to \(client.index)")
            }
            memset(base, 0xa5, Int(extent.bytes))
            extents.append(extent)
        }
        #expect(sum == grant.bytes && sum <= UInt64((bytes + frame - 1) / frame * frame))
        return 0
    }

    private func forget(_ extent: fos_memory_extent) {
        guard let region = regions[extent.token] else { return }
        for offset in stride(from: 0, to: Int(extent.bytes), by: 4096) {
            fleet.owners[UInt(bitPattern: region.base) + UInt(extent.offset) + UInt(offset)] = nil
        }
    }

    func free(_ list: [fos_memory_extent], inode: UInt64? = nil) throws -> (status: Int32, done: Int) {
        let payload = loopBytes(of: fos_memory_free(extents: UInt32(list.count), reserved: 0)) + list.flatMap { loopBytes(of: $0) }
        let reply = try client.call(
            LoopCall(FOS_OP_MEMORY_FREE, inode: inode ?? list.first?.token ?? 0, payload: payload), to: fleet.addresses.randomElement()!)
        let freed: fos_memory_freed = reply.fixed()
        return (reply.status, Int(freed.extents))
    }

    /// Frees a part of one of its extents, in frames.
    func freePart(_ index: Int, from: Int, count: Int, frame: Int = 4096) throws {
        let whole = extents.remove(at: index)
        let part = fos_memory_extent(token: whole.token, offset: whole.offset + UInt64(from * frame), bytes: UInt64(count * frame))
        forget(part)
        let answer = try free([part])
        #expect(answer.status == 0 && answer.done == 1, "seed \(fleet.seed): freeing what was granted: \(answer)")
        if from > 0 { extents.append(fos_memory_extent(token: whole.token, offset: whole.offset, bytes: UInt64(from * frame))) }
        let end = part.offset + part.bytes
        if end < whole.offset + whole.bytes {
            extents.append(fos_memory_extent(token: whole.token, offset: end, bytes: whole.offset + whole.bytes - end))
        }
    }

    /// All that it has goes from its hands; `keeping` what it has mapped, as after a fork.
    func abandon(keeping: Bool) {
        for extent in extents { forget(extent) }
        extents = []
        for region in regions.values { if keeping { kept.append(region) } else { letGo(region) } }
        regions = [:]
    }
    func letGoOfKept() {
        for region in kept { letGo(region) }
        kept = []
    }
    func retireAll(keeping: Bool) throws {
        abandon(keeping: keeping)
        let reply = try client.call(LoopCall(FOS_OP_MEMORY_RETIRE), to: fleet.addresses.randomElement()!)
        #expect(reply.status == 0)
    }
    func die(keeping: Bool) {
        abandon(keeping: keeping)
        client.die()
    }
}
