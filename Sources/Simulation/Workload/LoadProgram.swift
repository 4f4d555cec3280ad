// A thread of the workload whose load rises and falls: what makes a managed fleet grow and shrink.
//
// Role: each thread has a directory of its own and makes, reads the attributes of, and removes a file there, with long pauses in
// the first and last third of the time and short ones between. No operation of it may fail, however the slots move.
// Invariant: what it is answered depends on itself alone, so anything but success is a violation.

import CFosWire
import Messaging
public import Simulator

/// How much is asked of the fleet, and when.
public struct LoadPlan: Sendable, Equatable {
    /// Threads, each of a client of its own; 0: no such load.
    public var clients = 0
    /// From the first operation to the last.
    public var nanoseconds = 24_000_000
    /// The longest pause between two operations, in the first and last third, and between them.
    public var calmPause = 100_000
    public var busyPause = 1_000
    public init() {}
}

public final class LoadProgram: SimProgram {
    private enum Asked { case nothing, directory, file, attributes, removal }

    private let world: World
    private let plan: LoadPlan
    private let identity: Int
    private let begin: VirtualTime
    private var asked = Asked.nothing
    private var directory: UInt64 = 0
    private var file: UInt64 = 0
    private var looksLeft = 0
    private static var looks: Int { 6 }

    init(world: World, plan: LoadPlan, identity: Int, begin: VirtualTime) {
        self.world = world
        self.plan = plan
        self.identity = identity
        self.begin = begin
    }

    public override func step(_ thread: SimThread) -> SimStep {
        if case .nothing = asked {} else {
            if thread.status != 0 {
                world.history.recordWrong(
                    "load", "\(asked) of thread \(identity) was answered \(thread.status) at \(thread.returned / 1000) ns")
                return .end
            }
            take(thread)
            asked = .nothing
            return .pause(VirtualTime(1 + thread.random.below(pause(thread) * 1000)))
        }
        // Nothing is left behind but the directory.
        if isOver(thread), file == 0 { return .end }
        if directory == 0 {
            asked = .directory
            thread.makeDirectory(UInt64(FOS_ROOT_INODE), "load\(identity)")
        } else if file == 0 {
            asked = .file
            thread.create(directory, "f", exclusive: true)
        } else if looksLeft > 0, !isOver(thread) {
            asked = .attributes
            looksLeft -= 1
            thread.getAttributes(file)
        } else {
            asked = .removal
            thread.unlink(directory, "f")
        }
        return .call
    }

    private func take(_ thread: SimThread) {
        switch asked {
        case .nothing: break
        case .directory: directory = thread.attributes.inode
        case .file: (file, looksLeft) = (thread.attributes.inode, Self.looks)
        case .attributes:
            let attributes = thread.attributes
            if attributes.inode != file || attributes.links != 1 {
                world.history.recordWrong("load", "file \(file) was answered as inode \(attributes.inode) with \(attributes.links) links")
            }
        case .removal: file = 0
        }
    }

    private func elapsed(_ thread: SimThread) -> Int { Int((thread.host.time - begin) / 1000) }
    private func isOver(_ thread: SimThread) -> Bool { elapsed(thread) > plan.nanoseconds }
    private func pause(_ thread: SimThread) -> Int {
        let third = plan.nanoseconds / 3
        return (third..<2 * third).contains(elapsed(thread)) ? plan.busyPause : plan.calmPause
    }
}
