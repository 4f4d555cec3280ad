// LOOKUP: from a directory and a name to an inode's attributes.
//
// Protocol: the directory's owner finds the entry. If the inode lives elsewhere, the request goes on to its owner as
// PEER_LOOKUP, which answers the client. Requests between two servers keep their order, so a link that the entry's
// owner takes away later is taken away later there too.
// Invariants: an answer to the front end counts one kernel reference at the inode's owner, and leases the entry at
// the directory's owner, or its absence.

import CFosWire
import FileStorage
import Glibc
import Messaging

extension FileServer {
    mutating func lookup<K: Kernel>(_ directory: InodePointer, _ request: Request, _ kernel: K) {
        guard directory.isDirectory else {
            // open_by_handle_at(2) of what the kernel has forgotten: it asks for "." of whatever the handle names.
            if turn.isKernel, let name = request.wholeName, NameForm(name) == .dot { return answerEntry(directory, kernel) }
            return answer(-ENOTDIR, kernel)
        }
        guard turn.actor.may(Access.execute, directory) else { return answer(-EACCES, kernel) }
        guard let name = request.wholeName else { return answer(-EINVAL, kernel) }
        let form = NameForm(name)
        switch form {
        case .dot: return answerEntry(directory, kernel)
        case .dotDot: return goOn(directory.pointee.parent, request, kernel)
        default: if form != .plain { return answer(form.error(dots: 0), kernel) }
        }
        guard let dentry = directory.directory.pointee.find(name) else {
            if turn.isKernel { leaseAbsence(of: name, in: directory, kernel) }
            return answer(-ENOENT, kernel)
        }
        if dentry.pointee.flags.contains(.locked) { return answer(Status.retry, kernel) }
        if turn.isKernel { dentry.pointee.flags.insert(.kernelLease) }
        goOn(dentry.pointee.inode, request, kernel)
    }

    /// The inode is known: answers, or lets its owner answer.
    private mutating func goOn<K: Kernel>(_ child: UInt64, _ request: Request, _ kernel: K) {
        guard isHere(child) else {
            request.message.pointee.operation = UInt16(FOS_OP_PEER_LOOKUP.rawValue)
            request.message.pointee.flags = 0
            request.message.pointee.inode = child
            request.message.pointee.length = 0
            return pass(request, to: ownerIndex(of: child), kernel)
        }
        guard let inode = inodes.find(child) else { return answer(isLost(child) ? -EIO : Status.retry, kernel) }
        answerEntry(inode, kernel)
    }

    /// PEER_LOOKUP; with message.flags 1 it is a CREATE that found the name taken, and its payload is still there.
    mutating func finishLookup<K: Kernel>(_ request: Request, _ kernel: K) {
        // The entry has gone meanwhile: the client asks its directory again.
        let number = request.message.pointee.inode
        guard let inode = inodes.find(number) else { return answer(isLost(number) ? -EIO : Status.retry, kernel) }
        if request.message.pointee.flags & 1 != 0 {
            guard let make = request.fixed(fos_make_request.self) else { return answer(-EINVAL, kernel) }
            return openExisting(inode, make, kernel)
        }
        answerEntry(inode, kernel)
    }

    /// An answer that gives the client an inode to refer to.
    mutating func answerEntry<K: Kernel>(_ inode: InodePointer, flags: UInt16 = 0, delegates: Bool = false, _ kernel: K) {
        guard knowsAttributes(of: inode, kernel) else { return }
        if turn.isKernel { inode.pointee.kernelReferences &+= 1 }
        answer(attributesOf: inode, flags: flags, delegates: delegates, kernel)
    }

    /// The same of a name that was just made; with the directory's attributes, so that who keeps them need not ask again. A shard does
    /// not know those of its directory.
    /// `delegates`: the file is one that its maker is about to write.
    mutating func answerEntry<K: Kernel>(_ inode: InodePointer, in directory: InodePointer, flags: UInt16 = 0, delegates: Bool = false, _ kernel: K) {
        if turn.isKernel || directory.pointee.isSharded { return answerEntry(inode, flags: flags, kernel) }
        let message = kernel.scratch()
        message.setBody(fos_made(made: attributes(of: inode, kernel), directory: attributes(of: directory, kernel)))
        message.pointee.flags = flags
        if delegates { delegate(inode, in: message, kernel) }
        deliver(message, kernel)
    }

    /// The answer to the removal of a name.
    mutating func answerRemoval<K: Kernel>(from directory: InodePointer, _ kernel: K) {
        if turn.isKernel || directory.pointee.isSharded { return answer(0, kernel) }
        let message = kernel.scratch()
        message.setBody(attributes(of: directory, kernel))
        deliver(message, kernel)
    }
}
