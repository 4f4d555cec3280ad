// The worker threads of a mount: how many there are, and when there are more.
//
// Two start with the mount, and another one whenever the last idle worker takes a request, up to a few more than there
// are CPUs for them: more would cost memory (each touches up to a megabyte of its bulk area) and gain nothing.
// Beyond that a worker is added only when all of them are stuck: each waits for the service (a transaction with
// another client in progress), and what that transaction waits for, such as the flush of a dirty page, may be a
// request that nobody is left to read. The watch sees that no request was taken for two milliseconds while no worker
// was idle. Workers beyond the usual number leave again as soon as two others are idle.

import CFosProxy
import CFosWire
import CFuse
import Glibc
import Synchronization

final class WorkerPool: Sendable {
    private struct State: @unchecked Sendable {
        var places: [UnsafeMutablePointer<Worker>?]
        /// Requests by opcode of workers that have left.
        var retired: [UInt64]
    }
    private struct Bell: @unchecked Sendable {
        let semaphore: UnsafeMutablePointer<sem_t>
    }

    private let state: Mutex<State>
    private let bell: Bell
    /// Workers that growth under load stops at.
    let usual: Int

    /// - Parameter cpus: how many CPUs the workers may run on.
    init(cpus: Int) {
        usual = min(max(cpus, 1) + 3, 32)
        state = Mutex(
            State(
                places: [UnsafeMutablePointer<Worker>?](repeating: nil, count: FrontEndLimits.workers),
                retired: [UInt64](repeating: 0, count: Worker.opcodes)))
        bell = Bell(semaphore: .allocate(capacity: 1))
        sem_init(bell.semaphore, 0, 0)
    }

    deinit {
        sem_destroy(bell.semaphore)
        bell.semaphore.deallocate()
    }

    /// A record for a new worker thread. nil when there are enough, or no channel is left.
    func add(_ front: UnsafeMutablePointer<FrontEnd>) -> UnsafeMutablePointer<Worker>? {
        let place = Place(front)
        return state.withLock { (state: inout State) -> Taken? in
            guard let index = state.places.firstIndex(where: { $0 == nil }), var record = Worker(front: place.front) else { return nil }
            record.answering = place.front.pointee.answers.word(index)
            let worker = UnsafeMutablePointer<Worker>.allocate(capacity: 1)
            worker.initialize(to: record)
            state.places[index] = worker
            return Taken(worker)
        }?.worker
    }

    /// Takes the record of a worker that leaves: its counts stay, its channel and memory go.
    func remove(_ worker: UnsafeMutablePointer<Worker>) {
        let taken = Taken(worker)
        state.withLock { state in
            let worker = taken.worker
            guard let index = state.places.firstIndex(of: worker) else { return }
            state.places[index] = nil
            for opcode in 0..<Worker.opcodes { state.retired[opcode] &+= fos_load_relaxed_u64(worker.pointee.counts + opcode) }
        }
        worker.end()
    }

    /// Interrupts every worker's read.
    func signalAll() {
        state.withLock { state in
            for worker in state.places { if let worker, worker.pointee.thread != 0 { fos_fuse_signal_thread(worker.pointee.thread, wakeSignal) } }
        }
    }

    /// The kernel's numbers of the workers' threads that run.
    var threads: [Int32] {
        state.withLock { state in state.places.compactMap { worker in worker.map { $0.pointee.thread } }.filter { $0 != 0 } }
    }

    /// Requests by opcode; opcode 0, which the kernel does not use, counts all.
    func totals() -> [UInt64] {
        state.withLock { state in
            var sums = state.retired
            for case let worker? in state.places {
                for opcode in sums.indices { sums[opcode] &+= fos_load_relaxed_u64(worker.pointee.counts + opcode) }
            }
            return sums
        }
    }

    // MARK: The watch

    /// Called by a worker that has taken a request and left no other idle. Cheap when the watch is awake already.
    func ring(_ front: UnsafeMutablePointer<FrontEnd>) {
        if front.pointee.starved.exchange(0, 1) { sem_post(bell.semaphore) }
    }

    /// Wakes the watch so that it sees the end.
    func ringForEnd() { sem_post(bell.semaphore) }

    /// The watch's thread: sleeps until rung, then adds a worker each time nothing has moved.
    func watch(_ front: UnsafeMutablePointer<FrontEnd>) {
        while front.pointee.ending.value == 0 {
            while sem_wait(bell.semaphore) != 0 && errno == EINTR {}
            front.pointee.placement.confine()
            var seen = totals()[0]
            while front.pointee.ending.value == 0 && front.pointee.idle.value == 0 {
                usleep(2000)
                let now = totals()[0]
                if front.pointee.idle.value == 0 && now == seen { front.startWorker() }
                seen = now
            }
            front.pointee.starved.store(0)
            // A worker that took the last place between the two lines above has not rung.
            if front.pointee.idle.value == 0 { ring(front) }
        }
    }
}

/// Pointers that cross the pool's lock.
private struct Taken: @unchecked Sendable {
    let worker: UnsafeMutablePointer<Worker>
    init(_ worker: UnsafeMutablePointer<Worker>) { self.worker = worker }
}
private struct Place: @unchecked Sendable {
    let front: UnsafeMutablePointer<FrontEnd>
    init(_ front: UnsafeMutablePointer<FrontEnd>) { self.front = front }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// Gives the channel back, with the memory that its bulk area has taken, and the record.
    func end() {
        madvise(pointee.bulk, Int(FOS_BULK_BYTES), Int32(MADV_REMOVE))
        fos_channel_release(pointee.client, pointee.channel)
        pointee.counts.deallocate()
        pointee.listing?.deallocate()
        deallocate()
    }
}
