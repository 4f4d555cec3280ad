// Pages from the memory fleet: extents of frames, granted by message ahead of need, and given back when nothing is in them.
//
// Role: keeps the page pool stocked. A server that has fewer free pages than its stock asks for an extent beside its work;
// one that needs more than it has, because requests outran the fleet, keeps the request and runs it again when the extents
// are there (`waitForPages`), as it does for credits. Credits say how much the server may use, extents where.
// Invariants: a request waits for pages before it has changed anything. Without a memory fleet (tests of the file service
// alone) the pool takes its memory from Linux itself, and nothing here is asked.

import CFosWire
import FileStorage
import Glibc
import Messaging

/// The question for the next extent of the stock.
enum Stocking: BitwiseCopyable {
    case idle, asked
    /// The fleet had none; it is asked again from the next tick on.
    case refused
}

extension FileServer {
    /// After a turn: asks for the next extent before the pages run out.
    @inline(__always) mutating func stockUp<K: Kernel>(_ kernel: K) {
        if memory != nil, pool.available < Limits.pagesInStock, stocking == .idle, pool.available < pool.credits { askForStock(kernel) }
    }

    /// At ticks: the fleet may have memory again.
    mutating func askAgainForStock() {
        if stocking == .refused { stocking = .idle }
    }

    private mutating func askForStock<K: Kernel>(_ kernel: K) {
        guard let id = continuations.insert(Continuation(.stock)) else { return }
        // Nobody's request: its letter names no client.
        letters[index(id)].envelope = fos_envelope()
        letters[index(id)].envelope.client = UInt32.max
        letters[index(id)].message = fos_message()
        guard askForExtent(id, kernel) else {
            continuations.remove(id)
            return kernel.tickAgain()
        }
        stocking = .asked
    }

    private mutating func askForExtent<K: Kernel>(_ id: ContinuationID, _ kernel: K) -> Bool {
        guard let memory, let state = continuations.state(id) else { return false }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_MEMORY_ALLOCATE.rawValue)
        message.setBody(
            fos_memory_request(bytes: UInt64(PagePool.extentBytes), frame_bytes: UInt32(FOS_MEMORY_FRAME_BYTES), reserved: 0))
        guard kernel.send(message, to: memory, expecting: id, onBehalfOf: nil) == .sent else { return false }
        state.pointee.responses += 1
        return true
    }

    /// Takes over what a response grants. False: it grants nothing.
    private mutating func adopt(_ response: Response) -> Bool {
        let request = Request(letter: response.letter)
        guard response.status == 0, let grant = request.fixed(fos_memory_grant.self), grant.extents == 1,
            let extent = request.fixed(fos_memory_extent.self, at: MemoryLayout<fos_memory_grant>.size),
            let address = UnsafeMutableRawPointer(bitPattern: UInt(grant.address))
        else { return false }
        pool.adopt(address, token: extent.token, offset: extent.offset)
        return true
    }

    mutating func resumeStock<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        // Should the fleet have none, it is asked again at the next tick; a request that needs pages finds out before.
        stocking = adopt(response) ? .idle : .refused
        if stocking == .refused { kernel.tickAgain() }
        continuations.remove(id)
    }

    // MARK: Requests that wait

    /// Whether there is memory for so many new pages, and their nodes. If not, the turn's request waits for it.
    mutating func hasPages<K: Kernel>(_ missing: UInt64, _ kernel: K) -> Bool {
        guard memory != nil, missing > 0, !turn.rerun.contains(.outOfSpace) else { return true }
        let needed = Int(Limits.creditsOfPages(missing))
        if needed <= pool.available { return true }
        waitForPages(needed - pool.available, kernel)
        return false
    }

    /// Keeps the turn's request until there are so many more pages, and runs it again then.
    mutating func waitForPages<K: Kernel>(_ pages: Int, _ kernel: K) {
        guard !turn.rerun.contains(.outOfSpace) else { return answer(-ENOSPC, kernel) }
        if !turn.rerun.contains(.undelegated), endAllDelegations(kernel) { return goOnLater(adding: .undelegated, kernel) }
        var state = Continuation(.pages)
        state.rerun = turn.rerun
        guard let id = keep(state, kernel) else { return answer(Status.retry, kernel) }
        for _ in 0..<min((pages - 1) / PagePool.extentPages + 1, Limits.extentsAtOnce) {
            guard askForExtent(id, kernel) else { break }
        }
        if continuations.state(id)?.pointee.responses == 0 { decide(id, Status.retry, kernel) }
    }

    mutating func resumePages<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id) else { return }
        if adopt(response) { state.pointee.numbers.0 += 1 } else if response.status > 0 { state.pointee.numbers.1 += 1 }
        guard state.pointee.responses == 0 else { return }
        // Refused for the moment: another try is worth it.
        if state.pointee.numbers.0 == 0, state.pointee.numbers.1 > 0 { return decide(id, Status.retry, kernel) }
        runAgain(id, adding: state.pointee.numbers.0 == 0 ? .outOfSpace : Rerun(), kernel)
    }

    // MARK: Back to the fleet

    /// Gives back extents that nothing is in, beyond a stock for what comes next. At ticks.
    mutating func returnExtents<K: Kernel>(_ kernel: K) {
        guard let memory else { return }
        for _ in 0..<Limits.extentsOfTick {
            guard let unused = pool.unneeded(keeping: Limits.pagesKept) else { return }
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_MEMORY_FREE.rawValue)
            message.pointee.inode = unused.token
            message.setBody(fos_memory_free(extents: 1, reserved: 0))
            var extent = fos_memory_extent(token: unused.token, offset: unused.offset, bytes: UInt64(PagePool.extentBytes))
            withUnsafeBytes(of: &extent) { message.append($0) }
            // The same thread that uses the pages sends this, so nothing can be in them when it arrives.
            guard kernel.send(message, to: memory, expecting: .none, onBehalfOf: nil) == .sent else { break }
            pool.leave(unused.extent)
        }
        kernel.tickAgain()
    }
}
