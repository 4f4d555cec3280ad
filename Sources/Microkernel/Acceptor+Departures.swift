// Clients that go: how their ends are noticed, and what they had is taken back.
//
// Role: the end of a client's life, on the acceptor's thread.
// Protocol: a departure wakes nobody for a while: whichever message comes next finds the news, which a core reads before its bells,
// and what the dead had is taken back by the dozen, by the clock. Where one program follows the other, their ends do not wake
// this thread: it looks for them when the next one has been let in, and by the clock.
// Invariants: an entry is used again, and its segment unmapped, only after every core has said that it has forgotten the client.

import CFosWire
import CPlatform
import Glibc

extension Acceptor {
    /// Lets the clients go that have ended. One that ends while all is quiet wakes this thread. From then on it looks by itself, after
    /// whatever else wakes it and by the clock, until a look finds nobody: where programs come and go, none has to wake it.
    func noticeDepartures() {
        guard !isCalledForDepartures else { return }
        let foundAny = seeOffTheDead()
        let now = fos_platform_monotonic_ns()
        if foundAny || hasWelcomed {
            departuresDue = now + UInt64(Self.farewellTime) * 1_000_000
        } else if now >= departuresDue {
            isCalledForDepartures = fos_platform_poll_arm(poll, departures, Key.departures.rawValue << 32) == 0
        }
    }

    /// True if any client has ended since the last look.
    func seeOffTheDead() -> Bool {
        var foundAny = false
        var count: Int
        repeat {
            count = max(0, Int(fos_platform_poll_wait(departures, &gone, Int32(gone.count), 0)))
            for item in gone.prefix(count) { depart(Int(item.key & 0xffff_ffff)) }
            if count > 0 { foundAny = true }
        } while count == gone.count
        return foundAny
    }

    /// A client has gone: from now on its entry is dead to every core, and each is told.
    func depart(_ index: Int) {
        guard connections.indices.contains(index), connections[index].socket >= 0 else { return }
        let entry = fabric.clients + index
        fos_store_release_u32(Fabric.liveWord(entry), 0)
        if fos_load_acquire_u32(fabric.kernelCacheClient) == UInt32(index + 1) { fos_store_release_u32(fabric.kernelCacheClient, 0) }
        fos_platform_close(connections[index].socket)
        fos_platform_close(connections[index].pidfd)
        connections[index] = Connection(socket: -1, pidfd: -1)
        retiring.append(UInt32(index))
        let gone = locked { listed.removeValue(forKey: UInt32(index)) }
        if let gone { configuration.onClient?(gone, false) }
        for core in 0..<fabric.coreCount { fabric.controls[core].post(.detached, client: UInt32(index)) }
        // A core that is about to sleep looks for news after it has said so: this one, or the late wake, reaches it.
        if farewellsDue == nil { putOffFarewells() }
    }

    private func putOffFarewells() { farewellsDue = fos_platform_monotonic_ns() + UInt64(Self.farewellTime) * 1_000_000 }

    /// Takes back what the dead had, and wakes the cores that have slept through their departure.
    func settleFarewells() {
        guard let due = farewellsDue, fos_platform_monotonic_ns() >= due else { return }
        reclaim()
        farewellsDue = nil
        guard !retiring.isEmpty else { return }
        putOffFarewells()
        fos_fence()
        for core in 0..<fabric.coreCount { fabric.wake(core: core) }
    }

    /// Takes back the segments of clients that every core has forgotten.
    func reclaim() {
        retiring.removeAll { index in
            let entry = fabric.clients + Int(index)
            guard fos_load_acquire_u32(Fabric.farewellWord(entry)) == UInt32(fabric.coreCount) else { return false }
            dispose(entry)
            free.insert(index, at: 0)
            return true
        }
    }

    private func dispose(_ entry: UnsafeMutablePointer<ClientEntry>) {
        if let segment = entry.pointee.segment { fos_platform_unmap(segment, entry.pointee.segmentBytes) }
        entry.pointee.state?.deallocate()
        entry.pointee.groups?.deallocate()
        let generation = entry.pointee.generation
        entry.pointee = .empty
        entry.pointee.generation = generation
    }

    /// After all cores and this thread have ended: wakes whoever still sleeps in a segment, and frees them all.
    func dismiss() {
        for index in connections.indices {
            let entry = fabric.clients + index
            guard entry.pointee.segment != nil else { continue }
            for channel in 0..<Int(entry.pointee.channels) {
                let shared = entry.pointee.channel! + channel
                if fos_load_relaxed_u32(fos_channel_client_parked(shared)) != 0 {
                    _ = fos_platform_futex_wake(fos_channel_reply_sequence(shared), Int32.max)
                }
            }
            _ = fos_platform_futex_wake(fos_notice_control_bell(entry.pointee.noticeControl!), Int32.max)
            fos_platform_close(connections[index].socket)
            fos_platform_close(connections[index].pidfd)
            connections[index] = Connection()
            dispose(entry)
        }
        let left = locked {
            let left = handed
            handed = []
            return left
        }
        for socket in left { fos_platform_close(socket) }
    }
}
