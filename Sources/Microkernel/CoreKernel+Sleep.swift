// When a core ticks, spins, sleeps and ends: what it does when no server has a letter.
//
// Protocol: `spin` looks for a moment at what brings most work; when that was in vain for long enough (`ParkingPolicy`), `park`
// sleeps on the core's word of the board. Servers that worked get a tick, which may come later than 10 ms but not much sooner.
// Invariant: a core announces its sleep before it looks at everything once more, and a sender publishes before it looks for the
// announcement, so no letter waits for a core that sleeps.

import CFosWire
import CPlatform
import Messaging

extension CoreKernel {
    /// About every 10 ms on a core with work.
    private static var tickInterval: UInt64 { 10_000_000 }

    @usableFromInline func tickIsDue() -> Bool {
        let core = state
        core.pointee.parking.worked()
        core.pointee.workedSinceTick = true
        return core.pointee.clockIsFresh && core.pointee.clock &- core.pointee.lastTick >= Self.tickInterval
    }

    @usableFromInline func ticked() {
        state.pointee.clock = state.pointee.fastClock.correct()
        state.pointee.lastTick = state.pointee.clock
        state.pointee.workedSinceTick = false
    }

    /// The servers that have something to do when nothing else is, a bit for each mailbox; 0: none, or a client waits for this
    /// very CPU.
    @usableFromInline func takeIdle() -> UInt64 {
        let core = state
        guard core.pointee.idleWanted != 0, !core.pointee.parking.handOff else { return 0 }
        let wanted = core.pointee.idleWanted
        core.pointee.idleWanted = 0
        core.pointee.workedSinceTick = true
        return wanted
    }

    /// Spins for a moment on what brings most work: the channels in use, and other cores' letters. What a channel has is
    /// taken at once.
    @usableFromInline func spin() -> Spin {
        let core = state
        core.pointee.watchedAreSilent = false
        // In the first moments the next request is likely, and a pause (20 to 40 ns) would only delay it.
        let isEager = core.pointee.parking.idleTurns < ParkingPolicy.eagerTurns
        let othersSend = core.pointee.fabric.coreCount > 1
        // Read now, when nobody waits for it: what comes in this spin has come less than a microsecond later.
        core.pointee.clock = core.pointee.fastClock.now()
        core.pointee.clockIsFresh = true
        // 256 looks without a pause, and 8 with one, take about as long: a quarter to half a microsecond.
        for _ in 0..<(core.pointee.parking.handOff ? 1 : isEager ? 256 : 8) {
            let posted = core.pointee.watchedPost()
            if posted >= 0 {
                // None if it was refused, or has to wait for the privilege fleet.
                guard core.pointee.collectWatched(from: posted) > 0, core.pointee.localLetters != 0 else { return .nothing }
                return .letters(for: nextWithLetters(from: 0))
            }
            if othersSend {
                for mailbox in 0..<core.pointee.mailboxCount where core.pointee.mailboxes[mailbox].hasRemoteWork {
                    return .letters(for: mailbox - 1)
                }
            }
            if !isEager { fos_spin_pause() }
        }
        core.pointee.watchedAreSilent = true
        return core.pointee.parking.shouldPark() ? .enough : .nothing
    }

    /// Whether servers still have a tick to come for what they did. One that comes too soon after the last is put off:
    /// the core then sleeps for the rest of the interval only.
    @usableFromInline func tickBeforeParking() -> Bool {
        guard state.pointee.workedSinceTick else { return false }
        state.pointee.touchClock()
        return state.pointee.clock &- state.pointee.lastTick >= Self.tickInterval
    }

    private var anyNews: Bool {
        if hasControl || fos_load_acquire_u32(state.pointee.fabric.stopping) != 0 || state.pointee.pending.unasked > 0 {
            return true
        }
        for mailbox in 0..<state.pointee.mailboxCount where state.pointee.mailboxes[mailbox].hasWork {
            leave(mailbox: mailbox)
            return true
        }
        return state.pointee.anyBellRings()
    }

    /// Sleeps until somebody wakes this core. Announces it first, then looks once more at everything: a sender that
    /// publishes after the look finds the announcement (both sides fence between).
    @usableFromInline func park() {
        let core = state
        let word = fos_board_parked(core.pointee.fabric.board, UInt32(core.pointee.index))!
        fos_store_release_u32(word, 1)
        fos_fence()
        if anyNews {
            fos_store_release_u32(word, 0)
            core.pointee.parking.worked()
            return
        }
        beat()
        let before = fos_platform_monotonic_ns()
        let limit = core.pointee.workedSinceTick ? Self.tickInterval : ParkingPolicy.sleepMost
        _ = fos_platform_futex_wait(word, 1, limit)
        fos_store_release_u32(word, 0)
        core.pointee.parking.woke(after: fos_platform_monotonic_ns() &- before)
    }

    /// The instance ends: tells every client of this core that listens for notices.
    func sayGoodbye() {
        let core = state
        core.pointee.running.pointee = 0
        var notice = fos_notice()
        notice.kind = FOS_NOTICE_SHUTDOWN.rawValue
        for place in 0..<core.pointee.known { _ = core.pointee.notify(client: core.pointee.order[place], &notice) }
    }
}
