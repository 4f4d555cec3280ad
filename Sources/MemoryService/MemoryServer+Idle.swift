// Ahead of need: frames are zeroed, the reserve is filled, and what is beyond it goes back to Linux, in bounded steps.
//
// Protocol: FOS_OP_IDLE comes when the core has nothing else to do, and after a step another one is asked for while there is
// work left. FOS_OP_TICK looks at what time brings: retired regions that nobody has any more, memory that was not used.
// Invariants: a step zeroes or gives back `stepBytes` at most; what a client may want next comes first.

import Buddy
import CFosWire
import Glibc
import Messaging

extension MemoryServer {
    /// Memory was asked for or given back: what is free may be wanted again soon.
    mutating func used<K: Kernel>(_ kernel: K) {
        lastUse = kernel.monotonic
        isReturning = false
        kernel.tickAgain()
    }

    mutating func tick<K: Kernel>(_ kernel: K) {
        if retired.first != nil, ticksAsking > 0 {
            ticksAsking -= 1
            askRetired(kernel, most: Limits.askedOfTick)
            if retired.first != nil, ticksAsking > 0 { kernel.tickAgain() }
        }
        if refillIsPutOff {
            if mayRefill(kernel) { kernel.idleAgain() } else { kernel.tickAgain() }
        }
        guard hasSurplus else { return }
        if kernel.monotonic &- lastUse >= options.returnAfter {
            isReturning = true
            kernel.idleAgain()
        } else {
            kernel.tickAgain()
        }
    }

    mutating func idle<K: Kernel>(_ kernel: K) {
        guard zeroStep(kernel) || serverStep(kernel) || reserveStep(kernel) || returnStep(kernel) else { return }
        kernel.idleAgain()
    }

    /// Zeroes some of what came back.
    private mutating func zeroStep<K: Kernel>(_ kernel: K) -> Bool {
        guard let region = work.first else { return false }
        let size = region.pointee.size
        let done = region.pointee.zeroDirty(upTo: max(1, options.stepBytes >> size.shift))
        count(zeroed: done, size)
        removeWorkIfClean(region)
        return true
    }

    // MARK: The reserve

    func reserve(_ size: FrameSize) -> Int { size == .small ? reserve.0 : reserve.1 }

    /// Bytes of unbound regions of a frame size, and how many of them are zeroed.
    func unboundBytes(_ size: FrameSize) -> (all: Int, zeroed: Int) {
        let list = unboundList(size)
        var (all, zeroed) = (0, 0)
        var next = list.first
        while let region = next {
            all += region.pointee.memory.bytes
            zeroed += region.pointee.zeroed.freeFrames << size.shift
            next = list.next(region)
        }
        return (all, zeroed)
    }

    /// There is something to be made ready.
    var isWanting: Bool {
        if work.first != nil { return true }
        for size in FrameSize.all where unboundBytes(size).zeroed < reserve(size) { return true }
        return false
    }

    private func mayRefill<K: Kernel>(_ kernel: K) -> Bool { ranDry || kernel.monotonic &- lastUse >= options.refillAfter }

    /// Fills the reserve a little: absent frames of unbound regions, or a new region.
    private mutating func reserveStep<K: Kernel>(_ kernel: K) -> Bool {
        refillIsPutOff = !mayRefill(kernel)
        if refillIsPutOff {
            kernel.tickAgain()
            return false
        }
        for size in FrameSize.all {
            let (all, zeroed) = unboundBytes(size)
            guard zeroed < reserve(size), size == .small || kernel.hasHugeFrames else { continue }
            // What is to go back to Linux is no part of the reserve, or the two steps would undo each other for ever.
            let surplus = surplusUnbound(size)
            let list = unboundList(size)
            var next = list.first
            while let region = next {
                next = list.next(region)
                if region.pointee.isWhollyZeroed || region == surplus { continue }
                let step = region.pointee.dirty.freeFrames > 0 ? options.stepBytes : options.populateBytes
                let done = region.pointee.makeZeroed(upTo: max(1, step >> size.shift), kernel)
                count(zeroed: done, size)
                removeWorkIfClean(region)
                return true
            }
            guard all < reserve(size) else { continue }
            // A part of it is small regions, for clients that want little.
            let small = min(max(reserve(size) / 8, options.smallRegionBytes), options.largeRegionBytes / 2)
            let isSmall = all < small || reserve(size) - all < options.largeRegionBytes
            let bytes = isSmall ? options.smallRegionBytes : options.largeRegionBytes
            if charged + bytes <= limit, makeRegion(bytes: bytes, size, kernel) != nil { return true }
        }
        ranDry = false
        return false
    }

    /// Keeps an extent ready for the next server that asks, once one has.
    private mutating func serverStep<K: Kernel>(_ kernel: K) -> Bool {
        guard serverBytes > 0 else { return false }
        let order = (options.serverExtentBytes >> FrameSize.small.shift).trailingZeroBitCount
        var next = servers.first
        while let region = next {
            if let largest = region.pointee.zeroed.largestOrder, largest >= order { return false }
            next = servers.next(region)
        }
        next = servers.first
        while let region = next {
            next = servers.next(region)
            // The lowest frames first, so that what is ready becomes one block.
            let step = min(order, (options.populateBytes >> FrameSize.small.shift).trailingZeroBitCount)
            guard let first = region.pointee.absent.allocate(order: step) else { continue }
            let run = first..<first + 1 << step
            region.pointee.populate(run, kernel)
            region.pointee.zeroed.release(run)
            return true
        }
        return false
    }

    // MARK: Back to Linux

    /// Bytes that are free in memory that clients have, or servers can get.
    private func freeBytes(in list: RegionList) -> Int {
        var bytes = 0
        var next = list.first
        while let region = next {
            bytes += (region.pointee.zeroed.freeFrames + region.pointee.dirty.freeFrames) << region.pointee.size.shift
            next = list.next(region)
        }
        return bytes
    }

    /// Free memory that is worth giving back.
    private var hasSurplus: Bool {
        if surplusUnbound() != nil || surplusServers() != nil { return true }
        return surplusBound() != nil
    }

    /// An unbound region without which the reserve is still whole.
    private func surplusUnbound() -> RegionPointer? { surplusUnbound(.small) ?? surplusUnbound(.huge) }

    private func surplusUnbound(_ size: FrameSize) -> RegionPointer? {
        let all = unboundBytes(size).all
        var next = unboundList(size).first
        while let candidate = next {
            if all - candidate.pointee.memory.bytes >= reserve(size) { return candidate }
            next = unboundList(size).next(candidate)
        }
        return nil
    }

    /// A region for servers with free frames, if there are more of them than the extents kept ready; or an empty one.
    private func surplusServers() -> RegionPointer? {
        guard freeBytes(in: servers) > 2 * options.serverExtentBytes else { return nil }
        var next = servers.first
        while let region = next {
            next = servers.next(region)
            if region.pointee.zeroed.freeFrames + region.pointee.dirty.freeFrames > 0 { return region }
        }
        return nil
    }

    /// A client's region with free frames, if clients have more of them than the reserve has.
    private func surplusBound() -> RegionPointer? {
        for size in FrameSize.all {
            var free = 0
            var found: RegionPointer?
            for index in 0..<clients.count where clients[index].bytes > 0 {
                let list = clients[index][size]
                free += freeBytes(in: list)
                var next = list.first
                while found == nil, let region = next {
                    if region.pointee.zeroed.freeFrames + region.pointee.dirty.freeFrames > 0 { found = region }
                    next = list.next(region)
                }
            }
            if free > reserve(size), let found { return found }
        }
        return nil
    }

    private mutating func returnStep<K: Kernel>(_ kernel: K) -> Bool {
        guard isReturning else { return false }
        guard let region = surplusUnbound() ?? surplusServers() ?? surplusBound() else {
            isReturning = false
            return false
        }
        let done = region.pointee.giveBack(upTo: max(1, options.stepBytes >> region.pointee.size.shift), kernel)
        removeWorkIfClean(region)
        let isEmpty = region.pointee.granted == 0 && region.pointee.absent.freeFrames == region.pointee.frames
        if isEmpty, region.pointee.state != .bound { drop(region, kernel) }
        return done > 0 || isEmpty
    }

    mutating func setReserve<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.rights) & FOS_RIGHT_ADMIN.rawValue != 0 else { return answer(request, -EPERM, kernel) }
        guard let wanted = request.fixed(fos_memory_reserve.self), let size = FrameSize(bytes: wanted.frame_bytes) else {
            return answer(request, -EINVAL, kernel)
        }
        if size == .huge, !kernel.hasHugeFrames { return answer(request, -EOPNOTSUPP, kernel) }
        guard wanted.bytes <= UInt64(limit) else { return answer(request, -ENOMEM, kernel) }
        if size == .small { reserve.0 = Int(wanted.bytes) } else { reserve.1 = Int(wanted.bytes) }
        used(kernel)
        kernel.idleAgain()
        answer(request, 0, kernel)
    }
}
