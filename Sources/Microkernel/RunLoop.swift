// The run loop of one core (paper, figure 6): responses before requests, then look for news, spin, park.
//
// A turn: forget clients that died, take what clients' bells announce, run each server that has letters, run the
// microkernel's own mailbox. A turn without work spins; after the parking budget the core sleeps on its board word.
// Generic over the group of servers that share the core, and inlinable, so that a release build binds every server
// call statically in the module that puts servers together.

import CFosWire
public import Messaging

/// What a server has to do next.
@usableFromInline enum Next {
    /// Go on with what awaited the response in this slot.
    case resume(Int)
    /// Take a request.
    case receive(TakenRequest)
    /// Say its counters to who asked for them.
    case describe(TakenRequest)
    /// Nothing: the microkernel has answered or dropped its request.
    case done
    /// Nothing: its mailbox is empty.
    case rest
}

/// What a spin ends with.
@usableFromInline enum Spin {
    /// There are letters, and this server, or the microkernel (-1), has some.
    case letters(for: Int)
    /// There is nothing for the servers, as far as was looked.
    case nothing
    /// Nothing, and the core has spun long enough: it should park.
    case enough
}

extension CoreKernel {
    /// Letters one server handles before the next has its turn.
    @usableFromInline static var batch: Int { 64 }

    /// Runs a core until the instance stops.
    @inlinable func run<Group: ServerGroup & ~Copyable>(_ group: UnsafeMutablePointer<Group>) {
        let servers = group.pointee.count
        precondition(servers == serverCount, "a core's group and its placements differ in number")
        while beginTurn() {
            while let client = nextDeparture() {
                for server in 0..<servers {
                    group.pointee.receive(server: server, news(FOS_OP_CLIENT_GONE, to: server, client: client), self)
                }
                finishDeparture(client)
            }
            let gathered = gather()
            if serveLetters(group) || gathered {
                if tickIsDue() { tick(group) }
            } else if idle(group) {
                if tickIsDue() { tick(group) }
            } else {
                switch spin() {
                case .letters(let server):
                    // At once: what else a turn looks after can wait, and a client cannot.
                    if server >= 0 { serve(server, group) }
                    _ = serveLetters(group)
                    if tickIsDue() { tick(group) }
                case .nothing: break
                case .enough:
                    if tickBeforeParking() { tick(group) }
                    park()
                }
            }
        }
    }

    /// Lets every server run that has letters, and the microkernel. True if there were any.
    @inlinable func serveLetters<Group: ServerGroup & ~Copyable>(_ group: UnsafeMutablePointer<Group>) -> Bool {
        var worked = false
        var server = nextWithLetters(from: 0)
        while server >= 0 {
            worked = true
            serve(server, group)
            server = nextWithLetters(from: server + 1)
        }
        return serveMicrokernel() || worked
    }

    @inlinable func serve<Group: ServerGroup & ~Copyable>(_ server: Int, _ group: UnsafeMutablePointer<Group>) {
        for _ in 0..<Self.batch {
            switch next(of: server) {
            case .receive(let taken):
                group.pointee.receive(server: server, Request(letter: taken.letter), self)
                release(server, taken)
            case .resume(let slot):
                group.pointee.resume(server: server, response(server, slot), self)
                releaseResponse(server, slot)
            case .describe(let taken):
                var statistics = statistics(of: server)
                group.pointee.describe(server: server, &statistics)
                reply(taken, statistics)
                release(server, taken)
            case .done: break
            case .rest: return
            }
        }
        leave(server)
    }

    /// Lets servers do what they put off until nothing else was to be done. False: none has anything.
    @inlinable func idle<Group: ServerGroup & ~Copyable>(_ group: UnsafeMutablePointer<Group>) -> Bool {
        let wanted = takeIdle()
        guard wanted != 0 else { return false }
        for server in 0..<group.pointee.count where wanted & 2 << UInt64(server) != 0 {
            group.pointee.receive(server: server, news(FOS_OP_IDLE, to: server, client: UInt32.max), self)
        }
        return true
    }

    @inlinable func tick<Group: ServerGroup & ~Copyable>(_ group: UnsafeMutablePointer<Group>) {
        // First, so that a server can ask for the next one.
        ticked()
        for server in 0..<group.pointee.count {
            group.pointee.receive(server: server, news(FOS_OP_TICK, to: server, client: UInt32.max), self)
        }
    }
}
