// When a core sleeps: it spins about as long as a wake would cost, then parks on its futex word.
//
// A wake across CPUs was measured to cost 16 to 28 us to the sleeper and 6 us to the sender, so sleeping pays only
// if no work comes for longer than that. The budget adapts: work that comes soon after parking (the sleep was a
// mistake) doubles it; a long sleep (the spin before it was wasted) shrinks it. When the spinning thread finds that it
// was itself put aside by the scheduler, somebody else wants this CPU, and it parks at once. So it does when more threads
// want to run than there are CPUs: one of them waits, perhaps for this one, and on a busy CPU a wake is cheap.

import CPlatform

@usableFromInline struct ParkingPolicy: BitwiseCopyable {
    /// Nanoseconds of spinning before a core parks: at first, and the bounds between which it adapts. The least is what a wake costs, the
    /// most some ten times that.
    static var budgetStart: UInt64 { 40_000 }
    static var budgetLeast: UInt64 { 15_000 }
    static var budgetMost: UInt64 { 200_000 }
    /// A sleep shorter than this, in ns, was not worth it.
    static var soon: UInt64 { 150_000 }
    /// Two looks at the clock while spinning that lie further apart than this, in ns: the thread was preempted.
    static var preempted: UInt64 { 300_000 }
    /// A core with nothing to do looks around once in so long, in ns, in case news was lost with a dying client.
    static var sleepMost: UInt64 { 5_000_000_000 }
    /// Idle turns spun without a pause.
    static var eagerTurns: UInt32 { 4 }
    /// Idle turns between two looks at the clock; each spins for a quarter to half a microsecond.
    static var turnsALook: UInt32 { 4 }

    /// Nanoseconds of spinning before the first look whether somebody waits for a CPU, and between two looks.
    static var crowdLook: UInt64 { 10_000 }
    /// Looks in a row that must find it so. One may fall between a thread's waking another and its own sleep, as with each
    /// request through the mount, and counts both.
    static var crowdLooksNeeded: UInt32 { 2 }

    /// The kernel's count of runnable threads, and how many can run at once. -1: not asked.
    var crowdDescriptor: Int32 = -1
    var cpus: Int32 = 0
    var crowdLooked: UInt64 = 0
    var crowdedLooks: UInt32 = 0
    /// Nanoseconds to spin without work.
    var budget: UInt64 = budgetStart
    var idleTurns: UInt32 = 0
    var idleSince: UInt64 = 0
    var lastLook: UInt64 = 0
    var parks: UInt64 = 0
    /// A client that was just woken waits for this very CPU: the core steps aside as soon as it has nothing to do.
    var handOff = false

    mutating func worked() { idleTurns = 0 }

    /// After a turn without work: spin on (false), or park now (true)?
    mutating func shouldPark() -> Bool {
        if handOff { return true }
        idleTurns &+= 1
        if idleTurns == 1 {
            idleSince = 0
            return false
        }
        guard idleTurns % Self.turnsALook == 0 else { return false }
        let now = fos_platform_monotonic_ns()
        if idleSince == 0 {
            idleSince = now
            lastLook = now
            crowdLooked = now
            return false
        }
        let gap = now &- lastLook
        lastLook = now
        if gap > Self.preempted || now &- idleSince >= budget { return true }
        guard crowdDescriptor >= 0, now &- crowdLooked >= Self.crowdLook else { return false }
        crowdLooked = now
        handOff = isCrowded(fos_platform_runnable(crowdDescriptor))
        return handOff
    }

    /// A look at how many threads want to run (-1: not known). True: they were too many at the looks before, too.
    mutating func isCrowded(_ runnable: Int32) -> Bool {
        crowdedLooks = runnable > cpus ? crowdedLooks + 1 : 0
        guard crowdedLooks >= Self.crowdLooksNeeded else { return false }
        crowdedLooks = 0
        return true
    }

    /// After a sleep that lasted `slept` ns.
    mutating func woke(after slept: UInt64) {
        parks &+= 1
        idleTurns = 0
        // A sleep that gave the CPU to a client says nothing about how soon work comes.
        if handOff {
            handOff = false
        } else if slept < Self.soon {
            budget = min(budget * 2, Self.budgetMost)
        } else if slept > 4 * Self.budgetMost {
            budget = max(budget / 4 * 3, Self.budgetLeast)
        }
    }
}
