// What a file server does when another server dies, and when it is back.
//
// Protocol: the microkernel tells each server (FOS_OP_SERVER_GONE, _BACK), after everything that the dead one had sent.
// Questions that the dead one had not answered are answered by the microkernel, RETRY if they were not begun, else -EIO;
// so every transaction that waits goes on, and is undone or finished by its own rules.
// Rules: what a dead coordinator holds here is let go: the tree lock, and names of its renames, which it can no longer
// commit. A member that is gone for good is asked nothing any more; operations on what it owned are answered -EIO.

import CFosWire
import FileStorage
import Fleet
import Glibc
import Messaging

extension FileServer {
    mutating func serverGone<K: Kernel>(_ mailbox: MailboxAddress, forGood: Bool, _ kernel: K) {
        guard let peer = members.index(of: mailbox), peer != member else { return }
        if forGood { members.set(peer, alive: false) }
        if treeHolder == mailbox { treeHolder = nil }
        while let name = preparedNames.takeAny(of: mailbox) {
            guard let directory = inodes.find(name.directory) else { preconditionFailure("a prepared name has lost its directory") }
            settleOrphan(name, directory, kernel)
        }
        if owing > 0 { payOwed(kernel) }
    }

    /// A name that a dead coordinator had prepared. A placeholder goes. What another name led to may have been taken before
    /// the coordinator died: its owner is asked, and the name goes with it.
    private mutating func settleOrphan<K: Kernel>(_ name: PreparedName, _ directory: InodePointer, _ kernel: K) {
        let victim = name.dentry.pointee.inode
        committed(.released(directory: name.directory, name: name.dentry.name), kernel)
        if name.dentry.pointee.flags.contains(.placeholder) { return unlock(name.dentry, in: directory) }
        if isHere(victim) { return finishOrphan(name.dentry, in: directory, isGone: inodes.find(victim) == nil, kernel) }
        var state = Continuation(.orphan)
        state.directory = directory
        state.dentry = name.dentry
        // It is answered to nobody.
        state.isDecided = true
        turn.cookie = 0
        guard let id = keep(state, kernel) else { return unlock(name.dentry, in: directory) }
        let message = kernel.scratch()
        message.pointee.operation = UInt16(FOS_OP_PEER_ATTRIBUTES.rawValue)
        message.pointee.inode = victim
        guard kernel.send(message, to: owner(of: victim), expecting: id, onBehalfOf: nil) == .sent else {
            continuations.remove(id)
            return unlock(name.dentry, in: directory)
        }
        continuations.state(id)?.pointee.responses += 1
    }

    mutating func resumeOrphan<K: Kernel>(_ id: ContinuationID, _ response: Response, _ kernel: K) {
        guard let state = continuations.state(id), let directory = state.pointee.directory, let dentry = state.pointee.dentry else { return }
        continuations.remove(id)
        turn.cookie = 0
        finishOrphan(dentry, in: directory, isGone: response.status == -ENOENT, kernel)
    }

    private mutating func finishOrphan<K: Kernel>(_ dentry: DentryPointer, in directory: InodePointer, isGone: Bool, _ kernel: K) {
        unlock(dentry, in: directory)
        guard isGone, !continuations.isFull else { return }
        withUnsafeTemporaryAllocation(byteCount: dentry.name.count, alignment: 1) { name in
            name.copyMemory(from: dentry.name)
            removeEntry(directory, dentry, UnsafeRawBufferPointer(name), isGone: true, kernel)
        }
        // Nobody is answered when the kernel has let go of the entry.
        guard turn.cookie != 0 else { return }
        let id = ContinuationID(rawValue: UInt32(truncatingIfNeeded: turn.cookie))
        continuations.state(id)?.pointee.kind = .passing
        continuations.state(id)?.pointee.isDecided = true
        settle(id, kernel)
        turn.cookie = 0
    }

    mutating func serverBack<K: Kernel>(_ mailbox: MailboxAddress, _ kernel: K) {
        guard let peer = members.index(of: mailbox), peer != member else { return }
        members.set(peer, alive: true)
        if owing > 0 { payOwed(kernel) }
    }

    /// What a client is answered when a member could not be sent its request: that member is gone, or will have room.
    func refusalToAsk(_ peer: Int) -> Int32 { members.isAlive(peer) ? Status.retry : -EIO }

    /// Whether an inode that is not here was, and is lost: its server has been empty since.
    func isLost(_ number: UInt64) -> Bool { !inodes.mayHaveGiven(number) }
}
