// What comes back: FREE, RETIRE, REGION, and the end of clients.
//
// Invariants: a client frees only what is granted to it; nothing of a region that it has had is anybody else's before
// `Kernel.isAlone` says that nobody has it.

import Buddy
import CFosWire
import Glibc
import Messaging

extension MemoryServer {
    mutating func free<K: Kernel>(_ request: Request, _ kernel: K) {
        let token = request.message.pointee.inode
        guard isHere(token) else { return pass(request, token: token, kernel) }
        guard let list = request.fixed(fos_memory_free.self), list.extents <= UInt32(FOS_MEMORY_EXTENTS_MAX) else {
            return answer(request, -EINVAL, kernel)
        }
        used(kernel)
        var done: UInt32 = 0
        while done < list.extents {
            let place = MemoryLayout<fos_memory_free>.size + Int(done) * MemoryLayout<fos_memory_extent>.size
            guard let extent = request.fixed(fos_memory_extent.self, at: place), free(extent, request.envelope, kernel) else { break }
            done += 1
        }
        answer(request, body: fos_memory_freed(extents: done, reserved: 0), status: done == list.extents ? 0 : -EINVAL, kernel)
    }

    /// False, and nothing has changed, unless all of the extent is granted to the asker.
    private mutating func free<K: Kernel>(_ extent: fos_memory_extent, _ envelope: UnsafePointer<fos_envelope>, _ kernel: K) -> Bool {
        guard let region = region(extent.token), has(region, envelope) else { return false }
        let size = region.pointee.size
        let mask = UInt64(size.bytes - 1)
        let total = UInt64(region.pointee.memory.bytes)
        guard extent.offset & mask == 0, extent.bytes & mask == 0, extent.bytes > 0, extent.offset < total,
            extent.bytes <= total - extent.offset
        else { return false }
        let frames = Int(extent.offset) >> size.shift..<Int(extent.offset + extent.bytes) >> size.shift
        guard region.pointee.isGranted(frames) else { return false }
        region.pointee.free(frames)
        if size == .small { counters.0.freed += extent.bytes } else { counters.1.freed += extent.bytes }
        if region.pointee.state == .servers { serverBytes -= Int(extent.bytes) }
        addWork(region, kernel)
        return true
    }

    /// A client has its own regions, servers those for servers.
    private func has(_ region: RegionPointer, _ envelope: UnsafePointer<fos_envelope>) -> Bool {
        let isClient = UInt32(envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue
        switch region.pointee.state {
        case .bound: return isClient && region.pointee.client == envelope.pointee.client
        case .servers: return !isClient
        case .unbound, .retired: return false
        }
    }

    mutating func handOutAgain<K: Kernel>(_ request: Request, _ kernel: K) {
        let token = request.message.pointee.inode
        guard isHere(token) else { return pass(request, token: token, kernel) }
        guard let region = region(token), region.pointee.state == .bound, has(region, request.envelope) else {
            return answer(request, -ENOENT, kernel)
        }
        guard kernel.handOut(region.pointee.memory, token: token, to: request.envelope) else {
            return answer(request, Status.retry, kernel)
        }
        answer(
            request,
            body: fos_memory_region(
                bytes: UInt64(region.pointee.memory.bytes), frame_bytes: UInt32(region.pointee.size.bytes), reserved: 0), kernel)
    }

    // MARK: Retired regions

    mutating func retire<K: Kernel>(_ request: Request, _ kernel: K) {
        let token = request.message.pointee.inode
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue else { return answer(request, -EINVAL, kernel) }
        if token == 0 { return retireEverywhere(request, kernel) }
        guard isHere(token) else { return pass(request, token: token, kernel) }
        guard let region = region(token), has(region, request.envelope) else { return answer(request, -ENOENT, kernel) }
        used(kernel)
        retire(region, kernel)
        answer(request, 0, kernel)
    }

    private mutating func retire<K: Kernel>(_ region: RegionPointer, _ kernel: K) {
        changeHold(region.pointee.client) {
            $0[region.pointee.size].remove(region)
            $0.bytes -= region.pointee.memory.bytes
        }
        region.pointee.state = .retired
        region.pointee.client = UInt32.max
        retired.append(region)
        if kernel.isAlone(region.pointee.memory) { return reclaim(region, kernel) }
        ticksAsking = Limits.ticksAsking
        kernel.tickAgain()
    }

    /// All that a client has at this member.
    mutating func retireAll<K: Kernel>(of client: UInt32, _ kernel: K) {
        for size in FrameSize.all {
            while let region = hold(client)[size].first { retire(region, kernel) }
        }
    }

    mutating func clientGone<K: Kernel>(_ client: UInt32, _ kernel: K) {
        for index in 0..<Limits.continuations {
            guard let id = continuations.id(at: index), let state = continuations.state(id) else { continue }
            if Request(letter: letters + index).envelope.pointee.client == client { state.pointee.isOrphan = true }
        }
        retireAll(of: client, kernel)
        // Whoever else has died may have been the last to have one.
        if retired.first != nil {
            ticksAsking = Limits.ticksAsking
            kernel.tickAgain()
        }
    }

    /// Takes back the retired regions that nobody has any more. Those that somebody has are asked about in turn.
    mutating func askRetired<K: Kernel>(_ kernel: K, most: Int) {
        var next = retired.first
        var asked = 0
        while asked < most, let region = next {
            next = retired.next(region)
            asked += 1
            if kernel.isAlone(region.pointee.memory) {
                reclaim(region, kernel)
            } else {
                retired.remove(region)
                retired.append(region)
            }
        }
    }
}
