// Whose turn it is to read requests from the device.
//
// Why: the kernel wakes the worker that has waited longest, also when the one that is about to finish would have found the
// request a microsecond later. A program that makes one request after another, and the FORGETs that follow an unlink, so
// wake two workers for one request, and the second finds nothing: two switches in vain. With as many readers as there
// are CPUs for them, a worker that comes back finds what has been asked meanwhile.
// Protocol: a worker reads only in its turn, and keeps it while it serves what it has read. Before it sleeps (the reply of
// the service takes longer than a wake, a notice waits for the kernel) it gives the turn away; afterwards it waits for one
// like all others. Who leaves the loop gives its turn away too.
// Invariants: turns are neither made nor lost after the start; nobody sleeps, but in `read`, with a turn.

import CFosProxy
import Glibc

struct ReadingTurns {
    private let semaphore: UnsafeMutablePointer<sem_t>

    init(_ turns: Int) {
        semaphore = .allocate(capacity: 1)
        sem_init(semaphore, 0, UInt32(max(turns, 1)))
    }

    func deallocate() {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    /// Waits for a turn. False if a signal came instead.
    func take() -> Bool { sem_wait(semaphore) == 0 }
    func give() { sem_post(semaphore) }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// Waits for the calling worker's turn. False if it should look whether the mount ends.
    func takeTurn() -> Bool {
        if !pointee.hasTurn { pointee.hasTurn = pointee.front.pointee.turns.take() }
        return pointee.hasTurn
    }

    /// Lets another worker read. May be called by any thread of the mount, with or without a turn.
    func giveTurn() {
        guard pointee.hasTurn else { return }
        pointee.hasTurn = false
        pointee.front.pointee.turns.give()
    }
}

/// The proxy's hook: the calling thread is about to sleep until its reply comes.
func giveTurnBeforeSleep(_ context: UnsafeMutableRawPointer?) {
    context?.assumingMemoryBound(to: FrontEnd.self).currentWorker?.giveTurn()
}
