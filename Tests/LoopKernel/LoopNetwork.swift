// The transport of a loop host: what is in flight, as one FIFO queue a pair of endpoints and class of message.
//
// Role: reliable, ordered between two endpoints, unordered otherwise, as a network on chip is (paper, section 3.1).
// Requests and responses of one pair do not keep an order between each other: they arrive in different mailboxes.
// Invariants: `active` holds exactly the queues that are not empty; a letter is in one queue, or in the pool, or
// being delivered. A letter's bytes are overwritten when it goes back, so a server that kept a pointer reads rubbish.

import CFosWire
import Messaging

/// Who sends or receives.
enum LoopEndpoint: Hashable {
    case server(MailboxAddress)
    case client(UInt32)
    case kernel
}

enum LoopClass: UInt8 { case request, response, notice }

struct LoopRoute: Hashable {
    var from: LoopEndpoint
    var to: LoopEndpoint
    var type: LoopClass
}

/// Something in flight: a letter, or a notice.
struct LoopParcel {
    var letter: UnsafeMutablePointer<fos_letter>?
    var notice: UnsafeMutablePointer<fos_notice>?
}

struct LoopQueue {
    let route: LoopRoute
    private var items: [LoopParcel] = []
    private var head = 0
    /// Position in `LoopNetwork.active`, or -1.
    var position = -1

    init(route: LoopRoute) { self.route = route }
    var isEmpty: Bool { head == items.count }
    var waiting: ArraySlice<LoopParcel> { items[head...] }
    mutating func append(_ parcel: LoopParcel) { items.append(parcel) }
    mutating func removeFirst() -> LoopParcel {
        let parcel = items[head]
        head += 1
        if head == items.count {
            items.removeAll(keepingCapacity: true)
            head = 0
        } else if head > 256 {
            items.removeFirst(head)
            head = 0
        }
        return parcel
    }
    mutating func removeAll() -> [LoopParcel] {
        let all = Array(items[head...])
        items.removeAll()
        head = 0
        return all
    }
}

struct LoopNetwork {
    private(set) var queues: [LoopQueue] = []
    private var indices: [LoopRoute: Int] = [:]
    private var active: [Int] = []
    private var pool: [UnsafeMutablePointer<fos_letter>] = []
    /// Requests under way to a server, which fill its request mailbox.
    private(set) var requestsTo: [MailboxAddress: Int] = [:]

    var isEmpty: Bool { active.isEmpty }

    mutating func takeLetter() -> UnsafeMutablePointer<fos_letter> {
        let letter = pool.popLast() ?? .allocate(capacity: 1)
        letter.initialize(to: fos_letter())
        return letter
    }
    mutating func giveBack(_ letter: UnsafeMutablePointer<fos_letter>) {
        UnsafeMutableRawPointer(letter).initializeMemory(as: UInt8.self, repeating: 0xaa, count: MemoryLayout<fos_letter>.size)
        pool.append(letter)
    }

    mutating func enqueue(_ parcel: LoopParcel, _ route: LoopRoute) {
        let index: Int
        if let known = indices[route] {
            index = known
        } else {
            index = queues.count
            queues.append(LoopQueue(route: route))
            indices[route] = index
        }
        queues[index].append(parcel)
        if queues[index].position < 0 {
            queues[index].position = active.count
            active.append(index)
        }
        if route.type == .request, case .server(let address) = route.to { requestsTo[address, default: 0] += 1 }
    }

    /// Takes the first parcel of a queue that chance picks.
    mutating func dequeue(_ random: inout LoopRandom) -> (LoopParcel, LoopRoute)? {
        guard !active.isEmpty else { return nil }
        let index = active[random.below(active.count)]
        let parcel = queues[index].removeFirst()
        let route = queues[index].route
        if queues[index].isEmpty { deactivate(index) }
        count(route, -1)
        return (parcel, route)
    }

    /// Drops all that waits in the queues that match: what an endpoint that died had not sent out or taken in.
    mutating func drop(where matches: (LoopRoute) -> Bool) -> [(LoopParcel, LoopRoute)] {
        var dropped: [(LoopParcel, LoopRoute)] = []
        for index in active.reversed() where matches(queues[index].route) {
            let route = queues[index].route
            let parcels = queues[index].removeAll()
            deactivate(index)
            count(route, -parcels.count)
            for parcel in parcels { dropped.append((parcel, route)) }
        }
        return dropped
    }

    private mutating func deactivate(_ index: Int) {
        let position = queues[index].position
        let last = active.removeLast()
        if last != index {
            active[position] = last
            queues[last].position = position
        }
        queues[index].position = -1
    }
    private mutating func count(_ route: LoopRoute, _ change: Int) {
        guard route.type == .request, case .server(let address) = route.to else { return }
        requestsTo[address, default: 0] += change
    }

    mutating func destroy() {
        for index in active {
            for parcel in queues[index].waiting {
                parcel.letter?.deallocate()
                parcel.notice?.deallocate()
            }
        }
        for letter in pool { letter.deallocate() }
        active.removeAll()
        pool.removeAll()
    }
}
