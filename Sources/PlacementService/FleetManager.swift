// FleetManager: grows and shrinks the file fleet while it serves. The first member of the placement fleet.
//
// Protocol: <fos/fleet.h>. Servers report how long requests wait for them; the policy, or an administrator (FLEET_SET),
// says how many there should be; the manager tells all servers who serves (FLEET_MEMBERS) and orders slots to be given
// (FLEET_GIVE). A server that joins gets its share from each of the others, one that leaves gives all it has to those that
// stay. A change has come to its end when every server has reported that nothing is left to be moved.
// Invariants: one change at a time; member 0 stays; news and orders that meet full mailboxes go out at the next tick; an
// idle manager asks for no tick, so an idle instance sleeps.

public import CFosWire
public import Fleet
import Glibc
public import Messaging

/// What the manager knows of one place for a server.
struct ManagedServer: BitwiseCopyable {
    var mailbox: MailboxAddress
    var state: UInt32
    var report = fos_fleet_report()
    /// The counts of `report` at the beginning of the interval.
    var samplesBefore: UInt64 = 0
    var delayBefore: UInt64 = 0
    /// Over the last interval, ns.
    var delayMean: UInt64 = 0
    var delayMax: UInt64 = 0
    /// The longest of the interval that goes on.
    var longest: UInt64 = 0
    /// News of the members that it has not been told.
    var isUntold = false
}

public struct FleetManager: Server, ~Copyable {
    let servers: UnsafeMutablePointer<ManagedServer>
    let count: Int
    /// Slots to be ordered from each server for each: giver × count + taker.
    let orders: UnsafeMutablePointer<UInt32>
    var ordersLeft = 0
    let matrix: DistanceMatrix
    var programs: ProgramTraffic
    var policy: FleetPolicy
    let minimum: Int
    /// Most that the policy may choose: more servers than cores do not make a fleet faster.
    let automaticMaximum: Int
    /// 0: the policy chooses.
    var wanted = 0
    var epoch: UInt32 = 1
    var change = FleetChange()
    var lastDecision: UInt64 = 0
    var hasReports = false
    /// Intervals without a report, while there is more than the least number of servers.
    var quietIntervals = 0

    /// Between two looks at the fleet, ns.
    let interval: UInt64

    /// - Parameters:
    ///   - places: mailboxes of all file servers that may serve, in order of member index.
    ///   - serving: how many of them serve from the start.
    ///   - minimum, automaticMaximum: bounds of what the policy chooses; `places` bounds what an administrator can.
    ///   - distances: between cores, for the choice of places; and between them and the CPUs that programs run on.
    ///   - cpus: rows of `distances` that are CPUs, in the order of their numbers; empty: programs are not taken into account.
    ///   - interval: between two looks at the fleet, ns.
    public init(
        places: [MailboxAddress], serving: Int, minimum: Int, automaticMaximum: Int, distances: DistanceMatrix, cpus: Range<Int> = 0..<0,
        policy: FleetPolicy = FleetPolicy(), interval: UInt64 = 100_000_000
    ) {
        precondition(!places.isEmpty && places.count <= Int(FOS_FLEET_MEMBERS_MAX), "a managed fleet has 1 to 256 places")
        precondition((1...places.count).contains(serving) && (1...serving).contains(minimum), "a fleet begins within its bounds")
        count = places.count
        servers = .allocate(capacity: count)
        for (index, mailbox) in places.enumerated() {
            let state = index < serving ? FOS_FLEET_SERVING : FOS_FLEET_ABSENT
            (servers + index).initialize(to: ManagedServer(mailbox: mailbox, state: state.rawValue))
        }
        orders = .allocate(capacity: count * count)
        orders.initialize(repeating: 0, count: count * count)
        precondition(cpus.upperBound <= distances.cores, "every CPU has its distances")
        matrix = distances
        programs = ProgramTraffic(servers: places.count, cpus: cpus)
        self.minimum = minimum
        self.automaticMaximum = min(max(automaticMaximum, serving), count)
        self.policy = policy
        self.interval = interval
    }

    deinit {
        servers.deallocate()
        orders.deallocate()
    }

    // MARK: Server

    public mutating func receive<K: Kernel>(_ request: Request, _ kernel: K) {
        switch UInt32(request.operation) {
        case FOS_OP_FLEET_REPORT.rawValue: takeReport(request, kernel)
        case FOS_OP_FLEET_STATUS.rawValue: answerStatus(request, kernel)
        case FOS_OP_FLEET_SET.rawValue: set(request, kernel)
        case FOS_OP_TICK.rawValue: tick(kernel)
        case FOS_OP_CLIENT_GONE.rawValue: break
        case FOS_OP_PING.rawValue: answer(request, 0, kernel)
        case FOS_OP_STATISTICS.rawValue:
            let message = kernel.scratch()
            message.setBody(described(on: kernel))
            reply(request, message, kernel)
        default: answer(request, -ENOSYS, kernel)
        }
    }

    public mutating func resume<K: Kernel>(_ response: Response, _ kernel: K) {}

    public func describe(_ statistics: inout fos_statistics) {
        statistics.service = FOS_SERVICE_PLACEMENT.rawValue
        statistics.member = 0
    }

    func answer<K: Kernel>(_ request: Request, _ status: Int32, _ kernel: K) {
        let message = kernel.scratch()
        message.pointee.status = status
        reply(request, message, kernel)
    }
    func reply<K: Kernel>(_ request: Request, _ message: UnsafeMutablePointer<fos_message>, _ kernel: K) {
        guard UInt32(request.envelope.pointee.sender_kind) != FOS_SENDER_NONE.rawValue else { return }
        message.pointee.operation = request.operation
        kernel.reply(to: request.envelope, message)
    }

    // MARK: Reports

    private mutating func takeReport<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.sender_kind) == FOS_SENDER_NONE.rawValue, let report = request.fixed(fos_fleet_report.self),
            report.service == FOS_SERVICE_FILE.rawValue, report.member < UInt32(count),
            servers[Int(report.member)].mailbox.rawValue == request.envelope.pointee.from
        else { return }
        servers[Int(report.member)].report = report
        servers[Int(report.member)].longest = max(servers[Int(report.member)].longest, report.delay_max)
        programs.note(report)
        hasReports = true
        if change.isUnderWay { conclude(kernel) }
        kernel.tickAgain()
    }

    private mutating func tick<K: Kernel>(_ kernel: K) {
        if change.isUnderWay {
            spread(kernel)
            conclude(kernel)
        }
        let now = kernel.monotonic
        if now &- lastDecision >= interval {
            lastDecision = now
            decide(kernel)
        }
        if change.isUnderWay || (wanted == 0 && serving > minimum && quietIntervals <= policy.shrinkIntervals * 2) { kernel.tickAgain() }
    }

    /// Once an interval: what the last one was like, and what follows.
    private mutating func decide<K: Kernel>(_ kernel: K) {
        var samples: UInt64 = 0
        var delays: UInt64 = 0
        for index in 0..<count {
            let report = servers[index].report
            let (more, delay) = (report.samples &- servers[index].samplesBefore, report.delay_sum &- servers[index].delayBefore)
            servers[index].samplesBefore = report.samples
            servers[index].delayBefore = report.delay_sum
            if hasReports {
                programs.noteMeasured(more, by: index)
                servers[index].delayMean = more > 0 ? delay / more : 0
                servers[index].delayMax = servers[index].longest
                servers[index].longest = 0
            }
            samples &+= more
            delays &+= delay
        }
        if hasReports { programs.endInterval() }
        quietIntervals = hasReports ? 0 : quietIntervals + 1
        hasReports = false
        guard wanted == 0 else { return }
        let target = policy.decide(
            samples: samples, delaySum: delays, members: serving, minimum: minimum, maximum: automaticMaximum, isChanging: change.isUnderWay
        )
        if target != serving, !change.isUnderWay { resize(to: target, kernel) }
    }

    // MARK: Sizes

    var serving: Int {
        var sum = 0
        for index in 0..<count where servers[index].state == FOS_FLEET_SERVING.rawValue { sum += 1 }
        return sum
    }

    /// FLEET_SET.
    private mutating func set<K: Kernel>(_ request: Request, _ kernel: K) {
        guard UInt32(request.envelope.pointee.rights) & FOS_RIGHT_ADMIN.rawValue != 0 else { return answer(request, -EPERM, kernel) }
        guard let wish = request.fixed(fos_fleet_set.self), wish.service == FOS_SERVICE_FILE.rawValue, wish.members <= UInt32(count) else {
            return answer(request, -EINVAL, kernel)
        }
        guard wish.members == 0 || !change.isUnderWay else { return answer(request, Status.retry, kernel) }
        wanted = Int(wish.members)
        if wanted > 0, wanted != serving { resize(to: wanted, kernel) }
        answer(request, 0, kernel)
        kernel.tickAgain()
    }

    private mutating func resize<K: Kernel>(to target: Int, _ kernel: K) {
        change.begin(kernel.monotonic, servers: servers, count: count)
        let before = serving
        for next in newPlaces(target - before) { admit(next) }
        for index in stride(from: count - 1, to: 0, by: -1) where serving > target && servers[index].state == FOS_FLEET_SERVING.rawValue {
            servers[index].state = FOS_FLEET_LEAVING.rawValue
        }
        epoch &+= 1
        for index in 0..<count { servers[index].isUntold = true }
        if target > before { orderGrowth(from: before, to: target) } else { orderDeparture() }
        spread(kernel)
        kernel.tickAgain()
    }

    private mutating func admit(_ index: Int) {
        servers[index].state = FOS_FLEET_SERVING.rawValue
        servers[index].report.slots = 0
        servers[index].report.orders = 0
        change.noteJoined(index)
    }

    /// Each server that was there gives each new one an equal part of its slots.
    private mutating func orderGrowth(from before: Int, to target: Int) {
        let share = UInt32(Int(FOS_SLOTS) / (before * target))
        for giver in 0..<count where servers[giver].state == FOS_FLEET_SERVING.rawValue && !change.hasJoined(giver) {
            for taker in 0..<count where change.hasJoined(taker) { order(share, from: giver, to: taker) }
        }
    }

    /// Each server that leaves gives every one that stays its part of all slots.
    private mutating func orderDeparture() {
        let staying = serving
        for giver in 0..<count where servers[giver].state == FOS_FLEET_LEAVING.rawValue {
            // More than there are: what was taken meanwhile goes too. Orders take turns, so the parts are even.
            let share = min(UInt32(Int(FOS_SLOTS) / staying + 1), UInt32(FOS_SLOTS))
            for taker in 0..<count where servers[taker].state == FOS_FLEET_SERVING.rawValue { order(share, from: giver, to: taker) }
        }
    }

    private mutating func order(_ slots: UInt32, from giver: Int, to taker: Int) {
        if orders[giver * count + taker] == 0, slots > 0 { ordersLeft += 1 }
        orders[giver * count + taker] = slots
    }

    /// Sends the news of the members, and then the orders. What meets a full mailbox waits for the next tick.
    private mutating func spread<K: Kernel>(_ kernel: K) {
        for index in 0..<count where servers[index].isUntold {
            let message = kernel.scratch()
            message.pointee.operation = UInt16(FOS_OP_FLEET_MEMBERS.rawValue)
            message.setBody(membersNews)
            if kernel.send(message, to: servers[index].mailbox, expecting: .none, onBehalfOf: nil) == .full { return }
            servers[index].isUntold = false
        }
        guard ordersLeft > 0 else { return }
        for giver in 0..<count {
            for taker in 0..<count where orders[giver * count + taker] > 0 {
                let message = kernel.scratch()
                message.pointee.operation = UInt16(FOS_OP_FLEET_GIVE.rawValue)
                message.setBody(
                    fos_fleet_give(
                        member: UInt32(taker), slots: orders[giver * count + taker], slot: UInt32(FOS_FLEET_ANY_SLOT), reserved: 0))
                if kernel.send(message, to: servers[giver].mailbox, expecting: .none, onBehalfOf: nil) == .full { return }
                orders[giver * count + taker] = 0
                ordersLeft -= 1
                // Until its next report the server has something to do.
                servers[giver].report.orders = 1
            }
        }
    }

    private var membersNews: fos_fleet_members {
        var news = fos_fleet_members()
        news.service = FOS_SERVICE_FILE.rawValue
        news.epoch = epoch
        withUnsafeMutableBytes(of: &news.alive) { bits in
            for index in 0..<count where servers[index].state == FOS_FLEET_SERVING.rawValue { bits[index / 8] |= 1 << UInt8(index % 8) }
        }
        return news
    }

    /// Ends the change once every server has reported that it has nothing left to do.
    private mutating func conclude<K: Kernel>(_ kernel: K) {
        guard ordersLeft == 0 else { return }
        for index in 0..<count {
            let report = servers[index].report
            if servers[index].isUntold || report.orders > 0 { return }
            if servers[index].state == FOS_FLEET_LEAVING.rawValue, report.slots > 0 { return }
            if change.hasJoined(index), report.slots == 0 { return }
        }
        for index in 0..<count where servers[index].state == FOS_FLEET_LEAVING.rawValue {
            servers[index].state = FOS_FLEET_ABSENT.rawValue
            programs.forget(index)
        }
        change.end(kernel.monotonic, servers: servers, count: count)
    }
}
