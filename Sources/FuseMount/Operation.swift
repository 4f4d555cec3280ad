// One FUSE request being served: building its message, calling the service, answering the kernel.
//
// Invariants: each operation answers exactly once; a reply of the service is checked for length before it is read;
// an error status outside 1...4095 becomes EIO, so nothing the kernel would trip over is ever sent to it.

import CFosProxy
import CFosWire
import CFuse
import Glibc

struct Operation {
    let request: fuse_req_t
    let worker: UnsafeMutablePointer<Worker>

    /// - Parameter request: as libfuse hands it to a callback, on one of the mount's threads.
    init(_ request: fuse_req_t?) {
        self.request = request.unsafelyUnwrapped
        let front = fuse_req_userdata(request).assumingMemoryBound(to: FrontEnd.self)
        worker = front.currentWorker.unsafelyUnwrapped
    }

    init(_ request: fuse_req_t, worker: UnsafeMutablePointer<Worker>) {
        self.request = request
        self.worker = worker
    }

    var front: UnsafeMutablePointer<FrontEnd> { worker.pointee.front }

    // MARK: Messages

    /// A message with the acting user's credentials and no payload yet.
    func message(_ operation: fos_operation, _ inode: UInt64) -> UnsafeMutablePointer<fos_message> {
        let message = worker.message(operation, inode)
        let context = fuse_req_ctx(request).unsafelyUnwrapped
        message.pointee.uid = context.pointee.uid
        message.pointee.gid = context.pointee.gid
        message.pointee.pid = UInt32(bitPattern: context.pointee.pid)
        return message
    }

    /// Sends the message and waits. 0 or a negative errno.
    func call() -> Int32 { worker.call() }

    /// Sends a message that takes memory. Pages of an unlinked file come back when the kernel's FORGET is served,
    /// which may be queued behind this request, so a full service is asked again while FORGETs arrive.
    func callTakingMemory() -> Int32 {
        var status = call()
        var attempts = 0
        while status == -ENOSPC && attempts < 8 {
            let before = front.pointee.forgets.value
            worker.giveTurn()
            usleep(500)
            if front.pointee.forgets.value == before && attempts >= 2 { break }
            status = call()
            attempts += 1
        }
        return status
    }

    var reply: UnsafePointer<fos_message> { worker.reply }

    /// The payload of the reply, if it is long enough for it.
    func payload<Layout: BitwiseCopyable>(_ layout: Layout.Type) -> Layout? { worker.payload(layout) }

    // MARK: Answers

    func answer(_ status: Int32) { fuse_reply_err(request, Operation.errorNumber(status)) }

    /// The positive errno of a status; 0 stays 0.
    static func errorNumber(_ status: Int32) -> Int32 {
        status <= 0 && status > -4096 ? -status : EIO
    }

    /// Answers LOOKUP and the makers of files from the call's status and attributes.
    func answerEntry(_ status: Int32) {
        guard status == 0 else { return answer(status) }
        guard let attributes = payload(fos_attributes.self) else { return answer(-EIO) }
        answerEntry(attributes)
    }

    func answerEntry(_ attributes: fos_attributes, entryTimeout: Double = CacheTimeout.leased) {
        var entry = attributes.entry
        entry.entry_timeout = entryTimeout
        // -ENOENT: nobody waits for the answer any more, so the reference it carried is given back.
        if fuse_reply_entry(request, &entry) == -ENOENT { worker.forget(attributes.inode, 1) }
    }

    /// The name is absent, and the kernel may remember that for as long as the service knows that it may; of an answer that was long
    /// on its way it may not. `asked`: when the service was asked (`AnswerClock`).
    func answerAbsent(asked: Int) {
        guard AnswerClock.seconds &- asked < Int(FOS_ABSENT_SECONDS) else { return answer(-ENOENT) }
        var entry = fuse_entry_param()
        entry.entry_timeout = CacheTimeout.absent
        fuse_reply_entry(request, &entry)
    }

    func answerAttributes(_ status: Int32) {
        guard status == 0 else { return answer(status) }
        guard let attributes = payload(fos_attributes.self) else { return answer(-EIO) }
        var result = attributes.status
        fuse_reply_attr(request, &result, CacheTimeout.leased)
    }
}

/// The time by which an answer is old: cheap, and right to some milliseconds.
enum AnswerClock {
    static var seconds: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
        return time.tv_sec
    }
}

extension UnsafeMutablePointer where Pointee == Worker {
    /// A message without credentials: of the front end itself.
    func message(_ operation: fos_operation, _ inode: UInt64) -> UnsafeMutablePointer<fos_message> {
        if pointee.isGivingBack {
            pointee.isGivingBack = false
            _ = fos_wait(pointee.client, pointee.channel, UInt64.max)
        }
        return fos_request(pointee.client, pointee.channel, UInt16(truncatingIfNeeded: operation.rawValue), inode).unsafelyUnwrapped
    }

    func call() -> Int32 { fos_call(pointee.client, pointee.channel) }

    var reply: UnsafePointer<fos_message> { fos_reply(pointee.client, pointee.channel).unsafelyUnwrapped }

    func payload<Layout: BitwiseCopyable>(_ layout: Layout.Type) -> Layout? {
        let reply = self.reply
        guard reply.pointee.length >= MemoryLayout<Layout>.size else { return nil }
        return fos_payload_const(reply).loadUnaligned(as: layout)
    }

    /// Gives kernel references back.
    func forget(_ inode: UInt64, _ count: UInt64) {
        let message = message(FOS_OP_FORGET, inode)
        message.append(fos_forget_item(inode: inode, count: count))
        _ = call()
    }
}

extension UnsafeMutablePointer where Pointee == fos_message {
    /// Appends a fixed part to the payload. The callers' parts and names add up to less than FOS_PAYLOAD_BYTES_MAX.
    func append<Layout: BitwiseCopyable>(_ value: Layout) {
        let size = MemoryLayout<Layout>.size
        precondition(Int(pointee.length) + size <= Int(FOS_PAYLOAD_BYTES_MAX))
        (UnsafeMutableRawPointer(self + 1) + Int(pointee.length)).storeBytes(of: value, as: Layout.self)
        pointee.length += UInt32(size)
    }

    /// Appends a name whose length has been checked.
    func append(_ name: EntryName) {
        precondition(Int(pointee.length) + Int(name.length) <= Int(FOS_PAYLOAD_BYTES_MAX))
        (UnsafeMutableRawPointer(self + 1) + Int(pointee.length)).copyMemory(from: name.bytes, byteCount: Int(name.length))
        pointee.length += name.length
    }
}

/// A name in a request, at most FOS_NAME_BYTES_MAX bytes.
struct EntryName {
    let bytes: UnsafePointer<CChar>
    let length: UInt32

    /// nil when it is longer than a name may be (the kernel itself allows more); the answer is then ENAMETOOLONG.
    init?(_ name: UnsafePointer<CChar>?) {
        guard let name else { return nil }
        let length = strnlen(name, Int(FOS_NAME_BYTES_MAX) + 1)
        guard length <= Int(FOS_NAME_BYTES_MAX) else { return nil }
        bytes = name
        self.length = UInt32(length)
    }
}
