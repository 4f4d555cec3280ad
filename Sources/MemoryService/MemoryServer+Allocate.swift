// ALLOCATE: from what is zeroed already, then from what can be zeroed within one request, then from new regions.
//
// Protocol: the answer is at least one frame and at most what was asked; the client asks again for the rest. So no request
// zeroes more than `requestBytes`, and none waits but for peers.
// Invariants: what is granted is zeros. A region's descriptor is on its way to the client before any of it is granted.

import Buddy
import CFosWire
import Glibc
import Messaging

/// An answer in the making.
private struct Grant {
    let size: FrameSize
    /// Frames still wanted, and frames that may still be zeroed for it.
    var wanted: Int
    var budget: Int
    var extents = 0
    var frames = 0
    var regions: UInt32 = 0
    var isFull: Bool { wanted == 0 || extents == Int(FOS_MEMORY_EXTENTS_MAX) }
}

extension MemoryServer {
    mutating func allocate<K: Kernel>(_ request: Request, mayAsk: Bool, _ kernel: K) {
        guard let wanted = request.fixed(fos_memory_request.self), let size = FrameSize(bytes: wanted.frame_bytes), wanted.bytes > 0,
            wanted.bytes <= Limits.bytesMax
        else { return answer(request, -EINVAL, kernel) }
        if size == .huge, !kernel.hasHugeFrames { return answer(request, -EOPNOTSUPP, kernel) }
        used(kernel)
        let frames = (Int(wanted.bytes) + size.bytes - 1) >> size.shift
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_CLIENT.rawValue else {
            return allocateForServer(request, size: size, frames: frames, kernel)
        }
        if size == .small, reserve.0 == 0 { reserve.0 = options.reserveBytes }
        if size == .huge, reserve.1 == 0 { reserve.1 = options.reserveBytes }
        var grant = Grant(size: size, wanted: frames, budget: max(1, options.requestBytes >> size.shift))
        let client = request.envelope.pointee.client
        takeZeroed(from: client, &grant)
        // Little is zeroed at once; for much the reserve is there.
        if grant.wanted <= grant.budget { takeUnzeroed(from: client, &grant, kernel) }
        var canBind = true
        while !grant.isFull, canBind, let region = nextUnbound(for: grant.wanted, size, client, zeroed: true) {
            canBind = bind(region, to: request, &grant, kernel)
        }
        if !grant.isFull { ranDry = true }
        takeUnzeroed(from: client, &grant, kernel)
        while !grant.isFull, canBind, grant.budget > 0 {
            // To make room, retired regions are asked about, so there may be one where there was none.
            guard
                let region = nextUnbound(for: grant.wanted, size, client, zeroed: false) ?? makeRegion(
                    for: grant.wanted, size, client, kernel)
                    ?? nextUnbound(for: grant.wanted, size, client, zeroed: false)
            else { break }
            canBind = bind(region, to: request, &grant, kernel)
        }
        if isWanting { kernel.idleAgain() }
        if grant.frames > 0 { return answer(request, with: grant, kernel) }
        // The way to the client is full of descriptors for a moment.
        if !canBind { return answer(request, Status.retry, kernel) }
        if mayAsk, members.aliveCount > 1 {
            return steal(for: request, bytes: max(frames << size.shift, options.smallRegionBytes), size, kernel)
        }
        answer(request, -ENOMEM, kernel)
    }

    private func answer<K: Kernel>(_ request: Request, with grant: Grant, address: UInt64 = 0, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.operation = request.operation
        message.setBody(
            fos_memory_grant(
                bytes: UInt64(grant.frames << grant.size.shift), extents: UInt32(grant.extents), regions: grant.regions, address: address))
        message.append(UnsafeRawBufferPointer(start: extents, count: grant.extents * MemoryLayout<fos_memory_extent>.stride))
        kernel.reply(to: request.envelope, message)
    }

    private mutating func add(_ run: Range<Int>, of region: RegionPointer, to grant: inout Grant) {
        region.pointee.grant(run)
        grant.wanted -= run.count
        grant.frames += run.count
        let shift = grant.size.shift
        if grant.size == .small {
            counters.0.granted += UInt64(run.count << shift)
        } else {
            counters.1.granted += UInt64(run.count << shift)
        }
        let offset = UInt64(run.lowerBound << shift)
        let bytes = UInt64(run.count << shift)
        if grant.extents > 0 {
            let last = extents + (grant.extents - 1)
            if last.pointee.token == region.pointee.token, last.pointee.offset + last.pointee.bytes == offset {
                last.pointee.bytes += bytes
                return
            }
        }
        extents[grant.extents] = fos_memory_extent(token: region.pointee.token, offset: offset, bytes: bytes)
        grant.extents += 1
    }

    private mutating func takeZeroed(in region: RegionPointer, _ grant: inout Grant) {
        while !grant.isFull, let run = region.pointee.zeroed.take(upTo: grant.wanted) { add(run, of: region, to: &grant) }
    }

    private mutating func takeZeroed(from client: UInt32, _ grant: inout Grant) {
        let list = hold(client)[grant.size]
        var next = list.first
        while !grant.isFull, let region = next {
            next = list.next(region)
            takeZeroed(in: region, &grant)
        }
    }

    private mutating func takeUnzeroed<K: Kernel>(from client: UInt32, _ grant: inout Grant, _ kernel: K) {
        let list = hold(client)[grant.size]
        var next = list.first
        while !grant.isFull, grant.budget > 0, let region = next {
            next = list.next(region)
            zeroAndTake(in: region, &grant, kernel)
        }
    }

    private mutating func zeroAndTake<K: Kernel>(in region: RegionPointer, _ grant: inout Grant, _ kernel: K) {
        let done = region.pointee.makeZeroed(upTo: min(grant.wanted, grant.budget), kernel)
        guard done > 0 else { return }
        grant.budget -= done
        count(zeroed: done, grant.size)
        removeWorkIfClean(region)
        takeZeroed(in: region, &grant)
    }

    mutating func count(zeroed frames: Int, _ size: FrameSize) {
        if size == .small { counters.0.zeroed += UInt64(frames << size.shift) } else { counters.1.zeroed += UInt64(frames << size.shift) }
    }

    /// An unbound region, with zeroed frames or any; of the fitting size if there is one.
    private func nextUnbound(for frames: Int, _ size: FrameSize, _ client: UInt32, zeroed: Bool) -> RegionPointer? {
        let list = unboundList(size)
        let wantsLarge = isLarge(frames, size, client)
        var found: RegionPointer?
        var next = list.first
        while let region = next {
            next = list.next(region)
            if zeroed, region.pointee.zeroed.freeFrames == 0 { continue }
            if (region.pointee.memory.bytes == options.largeRegionBytes) == wantsLarge { return region }
            found = found ?? region
        }
        return found
    }

    /// Who wants or has much gets large regions.
    private func isLarge(_ frames: Int, _ size: FrameSize, _ client: UInt32) -> Bool {
        max(frames << size.shift, hold(client).bytes / 2) >= options.largeRegionBytes / 4
    }

    /// Makes an unbound region the client's, and grants what of it is zeroed or can be. False: its descriptor cannot be sent now.
    private mutating func bind<K: Kernel>(_ region: RegionPointer, to request: Request, _ grant: inout Grant, _ kernel: K) -> Bool {
        let client = request.envelope.pointee.client
        guard kernel.handOut(region.pointee.memory, token: region.pointee.token, to: request.envelope) else { return false }
        removeUnbound(region)
        region.pointee.state = .bound
        region.pointee.client = client
        let size = grant.size
        changeHold(client) {
            $0[size].append(region)
            $0.bytes += region.pointee.memory.bytes
        }
        grant.regions += 1
        takeZeroed(in: region, &grant)
        if !grant.isFull, grant.budget > 0 { zeroAndTake(in: region, &grant, kernel) }
        return true
    }

    /// A new region. nil: the limit, or Linux has no more.
    mutating func makeRegion<K: Kernel>(for frames: Int, _ size: FrameSize, _ client: UInt32, _ kernel: K) -> RegionPointer? {
        if isLarge(frames, size, client), let region = makeRegion(bytes: options.largeRegionBytes, size, kernel) { return region }
        return makeRegion(bytes: options.smallRegionBytes, size, kernel)
    }

    mutating func makeRegion<K: Kernel>(bytes: Int, _ size: FrameSize, _ kernel: K) -> RegionPointer? {
        guard makeRoom(bytes, keeping: size, kernel),
            let memory = kernel.makeFrames(bytes: bytes, huge: size == .huge, sharing: .lent)
        else { return nil }
        guard let region = enter(memory, size: size, state: .unbound, isZeroed: false) else {
            kernel.dropRegion(memory)
            return nil
        }
        return region
    }

    /// Makes the limit have room for so many bytes, if need be at the cost of unbound regions of the other frame size.
    mutating func makeRoom<K: Kernel>(_ bytes: Int, keeping size: FrameSize, _ kernel: K) -> Bool {
        if charged + bytes > limit { askRetired(kernel, most: Limits.askedOfTick) }
        while charged + bytes > limit {
            guard let region = unboundList(size == .small ? .huge : .small).first else { return false }
            drop(region, kernel)
        }
        return true
    }

    mutating func drop<K: Kernel>(_ region: RegionPointer, _ kernel: K) {
        let memory = region.pointee.memory
        leave(region)
        kernel.dropRegion(memory)
    }

    // MARK: For servers

    /// One extent, a power of two of frames, at a multiple of its size.
    private mutating func allocateForServer<K: Kernel>(_ request: Request, size: FrameSize, frames: Int, _ kernel: K) {
        let order = frames == 1 ? 0 : Int.bitWidth - (frames - 1).leadingZeroBitCount
        guard size == .small, (1 << order) << size.shift <= options.largeRegionBytes else { return answer(request, -EINVAL, kernel) }
        guard (1 << order) << size.shift <= options.serverLimitBytes - serverBytes, let (region, run) = takeForServer(order: order, kernel)
        else { return answer(request, -ENOMEM, kernel) }
        var grant = Grant(size: size, wanted: run.count, budget: 0)
        add(run, of: region, to: &grant)
        serverBytes += run.count << size.shift
        kernel.idleAgain()
        answer(request, with: grant, address: UInt64(UInt(bitPattern: region.pointee.memory.base + run.lowerBound << size.shift)), kernel)
    }

    private mutating func takeForServer<K: Kernel>(order: Int, _ kernel: K) -> (RegionPointer, Range<Int>)? {
        func block(_ first: Int?) -> Range<Int>? { first.map { $0..<$0 + 1 << order } }
        var next = servers.first
        while let region = next {
            if let run = block(region.pointee.zeroed.allocate(order: order)) { return (region, run) }
            next = servers.next(region)
        }
        next = servers.first
        while let region = next {
            if let run = block(region.pointee.dirty.allocate(order: order)) {
                region.pointee.clear(run)
                removeWorkIfClean(region)
                return (region, run)
            }
            if let run = block(region.pointee.absent.allocate(order: order)) {
                region.pointee.populate(run, kernel)
                return (region, run)
            }
            next = servers.next(region)
        }
        // Extents are had whole: by huge pages, where Linux has them, in a fifth of the time.
        guard let memory = kernel.makeFrames(bytes: options.largeRegionBytes, huge: true, sharing: .none) else { return nil }
        guard let region = enter(memory, size: .small, state: .servers, isZeroed: false) else {
            kernel.dropRegion(memory)
            return nil
        }
        guard let run = block(region.pointee.absent.allocate(order: order)) else { return nil }
        region.pointee.populate(run, kernel)
        return (region, run)
    }
}
