// The memory servers: random clients against the rules, the limit and its balance, what a client must not do, and what is
// made ready and given back.

import CFosWire
import Glibc
import LoopKernel
@testable import MemoryService
import Messaging
import Testing

@Suite struct MemoryServiceTests {
    /// Random clients that allocate, free in parts, retire, die, and keep mapped what they should not use.
    @Test(arguments: [1, 2, 3], 0..<6)
    func randomClientsSeeZerosAndNobodyElse(members: Int, round: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = LoopRandom(seed: seed)
        func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        let limit = 2 << 20
        let fleet = MemoryFleet(members: members, options: MemoryOptions.miniature(limitBytes: limit, reserveBytes: 256 << 10), seed: seed)
        {
            $0.fullChance = round % 2 == 0 ? 0 : 8
        }
        print("memory servers: seed \(seed), \(members) members")
        for _ in 0..<4 { _ = fleet.addPerson() }
        for step in 0..<600 {
            let living = fleet.people.filter { $0.client.isAlive }
            let person = living[below(living.count)]
            switch below(20) {
            case 0..<8:
                let bytes = below(10) == 0 ? 1 + below(1 << 20) : 1 + below(64 << 10)
                let status = try person.allocate(bytes, at: below(members))
                #expect(status == 0 || status == -ENOMEM, "seed \(seed): \(status)")
            case 8..<14:
                guard !person.extents.isEmpty else { break }
                let index = below(person.extents.count)
                let frames = Int(person.extents[index].bytes) / 4096
                let from = below(frames)
                try person.freePart(index, from: from, count: 1 + below(frames - from))
            case 14: try person.retireAll(keeping: below(2) == 0)
            case 15:
                person.die(keeping: below(2) == 0)
                // Whoever has it mapped goes on writing to it.
                for region in person.kept { memset(region.base, 0x77, region.bytes) }
                _ = fleet.addPerson()
            case 16:
                for other in fleet.people where below(2) == 0 {
                    for region in other.kept { memset(region.base, 0x33, region.bytes) }
                    other.letGoOfKept()
                }
            case 17: fleet.host.tick()
            default: fleet.host.idle()
            }
            fleet.people.removeAll { !$0.client.isAlive && $0.kept.isEmpty }
            if step % 50 == 0 { fleet.host.runUntilQuiet(); fleet.check("at step \(step)") }
        }
        for person in fleet.people {
            if person.client.isAlive { person.die(keeping: false) }
            person.letGoOfKept()
        }
        fleet.rest(milliseconds: 4000)
        fleet.check("at the end")
        for member in 0..<members {
            let s = fleet.statistics(member)
            #expect(s.frames.0.granted == 0 && s.frames.0.retired == 0 && s.frames.0.dirty == 0 && s.clients == 0, "seed \(seed): \(s)")
        }
    }

    @Test func whatARetiredRegionHoldsStaysUntilNobodyHasIt() throws {
        let fleet = MemoryFleet(members: 1, options: MemoryOptions.miniature(limitBytes: 64 << 10))
        let parent = fleet.addPerson()
        try parent.allocate(16 << 10)
        try parent.retireAll(keeping: true)
        let region = try #require(parent.kept.first)
        fleet.rest(milliseconds: 500)
        #expect(region.base.load(as: UInt8.self) == 0xa5, "a child's memory was zeroed")
        #expect(fleet.statistics(0).frames.0.retired == 64 << 10)
        #expect(try parent.allocate(4096) == -ENOMEM, "the limit counts what somebody still has")
        parent.letGoOfKept()
        #expect(try parent.allocate(4096) == 0)
        fleet.rest(milliseconds: 500)
        #expect(fleet.statistics(0).frames.0.retired == 0)
        fleet.check()
    }

    @Test func oneClientCanHaveTheLimitOfAllMembersAndNotMore() throws {
        let limit = 1 << 20
        let fleet = MemoryFleet(members: 3, options: MemoryOptions.miniature(limitBytes: limit))
        let person = fleet.addPerson()
        var status: Int32 = 0
        while status == 0 { status = try person.allocate(200 << 10) }
        #expect(status == -ENOMEM)
        #expect(person.extents.reduce(0) { $0 + $1.bytes } == UInt64(3 * limit))
        fleet.check()
        let freed = Int(fos_memory_token_member(person.extents[0].token))
        try person.freePart(0, from: 0, count: 1)
        // The freed frame is in a region of the member that it is asked from.
        #expect(try person.allocate(4096, at: freed) == 0)
        person.die(keeping: false)
        fleet.rest(milliseconds: 2000)
        fleet.check()
    }

    @Test func zeroedRegionsMoveToAMemberThatRunsDry() throws {
        let fleet = MemoryFleet(members: 2, options: MemoryOptions.miniature(limitBytes: 512 << 10, reserveBytes: 256 << 10))
        let first = fleet.addPerson()
        try first.allocate(4096, at: 1)
        fleet.rest()
        let before = fleet.host.populated
        let second = fleet.addPerson()
        while try second.allocate(64 << 10, at: 0) == 0 {}
        #expect(second.extents.contains { fos_memory_token_member($0.token) == 0 })
        #expect(second.extents.reduce(0) { $0 + $1.bytes } > UInt64(512 << 10), "more than the member began with")
        #expect(fleet.host.populated - before <= 768 << 10)
        fleet.check()
    }

    @Test func framesOfTwoMebibytes() throws {
        var options = MemoryOptions(limitBytes: 32 << 20, reserveBytes: 8 << 20)
        options.largeRegionBytes = 16 << 20
        let fleet = MemoryFleet(members: 1, options: options)
        let person = fleet.addPerson()
        #expect(try person.allocate(3 << 20, frame: 2 << 20) == 0)
        #expect(person.extents.reduce(0) { $0 + $1.bytes } == 4 << 20)
        #expect(person.extents.allSatisfy { $0.offset % (2 << 20) == 0 })
        #expect(try person.free([fos_memory_extent(token: person.extents[0].token, offset: 0, bytes: 4096)]).status == -EINVAL)
        try person.freePart(0, from: 0, count: 1, frame: 2 << 20)
        fleet.rest(milliseconds: 100)
        #expect(fleet.statistics(0).frames.1.unbound == 8 << 20, "the reserve is whole")
        fleet.check()
    }

    @Test func withoutHugeFramesSmallOnesAreStillThere() throws {
        let fleet = MemoryFleet(members: 1, options: MemoryOptions.miniature(limitBytes: 1 << 20)) { $0.hasHugeFrames = false }
        let person = fleet.addPerson()
        #expect(try person.allocate(2 << 20, frame: 2 << 20) == -EOPNOTSUPP)
        #expect(try person.allocate(4096) == 0)
        #expect(fleet.statistics(0).huge == 0)
    }

    @Test func theReserveIsBuiltWhenSomebodyAsksAndWhatIsBeyondItGoesBack() throws {
        let fleet = MemoryFleet(members: 1, options: MemoryOptions.miniature(limitBytes: 8 << 20, reserveBytes: 1 << 20))
        fleet.rest(milliseconds: 100)
        #expect(fleet.host.populated == 0, "nothing before the first request")
        let person = fleet.addPerson()
        try person.allocate(4096)
        fleet.rest()
        #expect(fleet.statistics(0).frames.0.unbound == 1 << 20)
        // A request is given what is zeroed and a little more.
        for _ in 0..<64 where person.extents.reduce(0, { $0 + $1.bytes }) < 4 << 20 { try person.allocate(512 << 10) }
        person.die(keeping: false)
        fleet.rest()
        let peak = fleet.host.populated
        #expect(peak >= 4 << 20)
        fleet.rest(milliseconds: 3000)
        #expect(fleet.statistics(0).frames.0.unbound >= 1 << 20)
        #expect(fleet.host.populated < 2 << 20, "\(fleet.host.populated) of \(peak) are left")
        #expect(fleet.host.ticksWanted.isEmpty && fleet.host.idleWanted.isEmpty, "an idle server asks for nothing")
        fleet.check()
    }

    @Test func theReserveIsFilledAgainWhenUsePausesAndAtOnceWhenItRanDry() throws {
        var options = MemoryOptions.miniature(limitBytes: 16 << 20, reserveBytes: 1 << 20)
        options.refillAfter = 20_000_000
        let fleet = MemoryFleet(members: 1, options: options)
        func ready() -> UInt64 { fleet.statistics(0).frames.0.unbound }
        let first = fleet.addPerson()
        try first.allocate(4096)
        fleet.rest()
        #expect(ready() == 1 << 20, "there was none when it was asked for")
        let second = fleet.addPerson()
        try second.allocate(64 << 10)
        fleet.rest()
        #expect(ready() < 1 << 20, "who has just taken some is left in peace")
        fleet.rest(milliseconds: 50)
        #expect(ready() == 1 << 20)
        #expect(fleet.host.ticksWanted.isEmpty && fleet.host.idleWanted.isEmpty, "a full reserve asks for nothing")
        for _ in 0..<64 where second.extents.reduce(0, { $0 + $1.bytes }) < 3 << 20 { try second.allocate(512 << 10) }
        fleet.rest()
        #expect(ready() == 1 << 20, "it ran dry")
        fleet.check()
    }

    @Test func memoryOfTheHostRunsOut() throws {
        let fleet = MemoryFleet(members: 1, options: MemoryOptions.miniature(limitBytes: 8 << 20)) { $0.memoryBytes = 256 << 10 }
        let person = fleet.addPerson()
        var status: Int32 = 0
        while status == 0 { status = try person.allocate(64 << 10) }
        #expect(status == -ENOMEM)
        #expect(person.extents.reduce(0) { $0 + $1.bytes } == 256 << 10)
        fleet.check()
    }

    // MARK: What a client must not do

    @Test func nobodyFreesWhatIsNotTheirs() throws {
        let fleet = MemoryFleet(members: 2, options: MemoryOptions.miniature(limitBytes: 1 << 20))
        let (owner, thief) = (fleet.addPerson(), fleet.addPerson())
        try owner.allocate(64 << 10)
        try thief.allocate(4096, at: 1)
        let extent = owner.extents[0]
        #expect(try thief.free([extent]).status == -EINVAL)
        #expect(try thief.client.call(LoopCall(FOS_OP_MEMORY_RETIRE, inode: extent.token), to: fleet.addresses[0]).status == -ENOENT)
        #expect(try thief.client.call(LoopCall(FOS_OP_MEMORY_REGION, inode: extent.token), to: fleet.addresses[1]).status == -ENOENT)
        func changed(_ body: (inout fos_memory_extent) -> Void) -> fos_memory_extent {
            var copy = extent
            body(&copy)
            return copy
        }
        let wrong = [
            changed { $0.offset += 1 }, changed { $0.bytes -= 1 }, changed { $0.bytes = 0 }, changed { $0.bytes = UInt64.max - 4095 },
            changed { $0.offset = UInt64.max - 4095 }, changed { $0.bytes += 4096 << 20 }, changed { $0.token ^= 1 },
            changed { $0.token += 1 << 16 }, changed { $0.token &= ~(1 << 63) }, changed { $0.offset = 1 << 63 },
        ]
        for bad in wrong { #expect(try owner.free([bad], inode: extent.token).status == -EINVAL, "\(bad)") }
        // The first is right and comes twice: one of them is freed.
        let twice = try owner.free([extent, extent])
        #expect(twice.status == -EINVAL && twice.done == 1)
        owner.abandon(keeping: true)
        fleet.check()
    }

    @Test func malformedAndForbiddenRequests() throws {
        let fleet = MemoryFleet(members: 2, options: MemoryOptions.miniature(limitBytes: 1 << 20))
        let person = fleet.addPerson()
        func status(_ operation: fos_operation, inode: UInt64 = 0, _ payload: [UInt8] = []) throws -> Int32 {
            try person.client.call(LoopCall(operation, inode: inode, payload: payload), to: fleet.addresses[0]).status
        }
        #expect(try status(FOS_OP_MEMORY_ALLOCATE) == -EINVAL)
        #expect(try status(FOS_OP_MEMORY_ALLOCATE, loopBytes(of: fos_memory_request(bytes: 0, frame_bytes: 4096, reserved: 0))) == -EINVAL)
        #expect(
            try status(FOS_OP_MEMORY_ALLOCATE, loopBytes(of: fos_memory_request(bytes: UInt64.max, frame_bytes: 4096, reserved: 0)))
                == -EINVAL)
        #expect(try status(FOS_OP_MEMORY_ALLOCATE, loopBytes(of: fos_memory_request(bytes: 1, frame_bytes: 8192, reserved: 0))) == -EINVAL)
        #expect(try status(FOS_OP_MEMORY_FREE) == -ENOENT)
        #expect(try status(FOS_OP_MEMORY_FREE, inode: fos_memory_token(0, 1, 0)) == -EINVAL)
        #expect(
            try status(FOS_OP_MEMORY_FREE, inode: fos_memory_token(0, 1, 0), loopBytes(of: fos_memory_free(extents: 32, reserved: 0)))
                == -EINVAL)
        #expect(try status(FOS_OP_MEMORY_RETIRE, inode: fos_memory_token(200, 1, 0)) == -ENOENT)
        #expect(try status(FOS_OP_MEMORY_RETIRE, inode: 5) == -ENOENT)
        #expect(try status(FOS_OP_MEMORY_RESERVE, loopBytes(of: fos_memory_reserve(bytes: 4096, frame_bytes: 4096, reserved: 0))) == -EPERM)
        for operation in [FOS_OP_CLIENT_GONE, FOS_OP_TICK, FOS_OP_IDLE] { #expect(try status(operation) == -EPERM) }
        for operation in [FOS_OP_PEER_MEMORY_STEAL, FOS_OP_PEER_MEMORY_RETIRE] {
            #expect(try status(fos_operation(rawValue: operation.rawValue)) == -EPERM)
        }
        #expect(try status(fos_operation(rawValue: 540)) == -ENOSYS)
        fleet.check()
    }

    // MARK: Servers

    @Test func serversGetExtentsThatNoClientCanHave() throws {
        let fleet = MemoryFleet(members: 1, options: MemoryOptions.miniature(limitBytes: 0)) { $0.memoryBytes = 1 << 20 }
        func ask() throws -> (Int32, fos_memory_grant, fos_memory_extent) {
            let request = fos_memory_request(bytes: 64 << 10, frame_bytes: 4096, reserved: 0)
            let reply = try fleet.host.kernelCall(LoopCall(FOS_OP_MEMORY_ALLOCATE, request), to: fleet.addresses[0])
            return (reply.status, loopFixed(reply.payload), loopFixed(reply.payload, at: MemoryLayout<fos_memory_grant>.size))
        }
        var extents: [(UInt64, fos_memory_extent)] = []
        while true {
            let (status, grant, extent) = try ask()
            guard status == 0 else {
                #expect(status == -ENOMEM)
                break
            }
            #expect(grant.address % (64 << 10) == 0 && grant.bytes == 64 << 10 && grant.extents == 1 && grant.regions == 0)
            let base = try #require(UnsafeMutableRawPointer(bitPattern: UInt(grant.address)))
            #expect(UnsafeRawBufferPointer(start: base, count: 64 << 10).allSatisfy { $0 == 0 })
            memset(base, 0xee, 64 << 10)
            extents.append((grant.address, extent))
        }
        #expect(extents.count == 16, "the memory of the host, in regions of 512 KiB")
        #expect(fleet.statistics(0).servers == 1 << 20 && fleet.host.handedOut.isEmpty)
        let person = fleet.addPerson()
        #expect(try person.free([extents[0].1]).status == -EINVAL, "a client frees memory of servers")
        for (_, extent) in extents {
            let payload = loopBytes(of: fos_memory_free(extents: 1, reserved: 0)) + loopBytes(of: extent)
            #expect(
                try fleet.host.kernelCall(LoopCall(FOS_OP_MEMORY_FREE, inode: extent.token, payload: payload), to: fleet.addresses[0])
                    .status == 0)
        }
        let (status, grant, _) = try ask()
        #expect(status == 0)
        let base = try #require(UnsafeMutableRawPointer(bitPattern: UInt(grant.address)))
        #expect(UnsafeRawBufferPointer(start: base, count: 64 << 10).allSatisfy { $0 == 0 })
        fleet.rest(milliseconds: 2000)
        fleet.check()
        #expect(fleet.statistics(0).frames.0.dirty == 0)
    }

    @Test func serversHaveALimitToo() throws {
        var options = MemoryOptions.miniature(limitBytes: 0)
        options.serverLimitBytes = 256 << 10
        let fleet = MemoryFleet(members: 1, options: options)
        let request = fos_memory_request(bytes: 64 << 10, frame_bytes: 4096, reserved: 0)
        for round in 0..<6 {
            let status = try fleet.host.kernelCall(LoopCall(FOS_OP_MEMORY_ALLOCATE, request), to: fleet.addresses[0]).status
            #expect(status == (round < 4 ? 0 : -ENOMEM), "extent \(round)")
        }
        #expect(fleet.statistics(0).servers == 256 << 10)
    }
}
