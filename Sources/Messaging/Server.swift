// The Server interface: a single-threaded service that only receives messages (paper, figure 6).
//
// Protocol: the run loop hands over responses before requests. `receive` runs a transaction to completion and replies,
// forwards it, or stores a continuation and returns, having acquired all it needs first. `resume` continues one.
// Invariants: a server keeps no reference to a letter after the call; it never blocks, and holds no lock.

public import CFosWire

/// A request in a mailbox slot. Valid for the duration of `Server.receive` only.
public struct Request {
    public let letter: UnsafeMutablePointer<fos_letter>
    @inlinable public init(letter: UnsafeMutablePointer<fos_letter>) { self.letter = letter }
    @inlinable public var envelope: UnsafeMutablePointer<fos_envelope> {
        UnsafeMutableRawPointer(letter).assumingMemoryBound(to: fos_envelope.self)
    }
    @inlinable public var message: UnsafeMutablePointer<fos_message> {
        (UnsafeMutableRawPointer(letter) + MemoryLayout<fos_envelope>.size).assumingMemoryBound(to: fos_message.self)
    }
    @inlinable public var operation: UInt16 { message.pointee.operation }
    /// The payload, whose length the microkernel has already bounded.
    @inlinable public var payload: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(message) + MemoryLayout<fos_message>.size, count: Int(message.pointee.length))
    }
}

/// A response in a server's response mailbox, with the continuation it belongs to (in `envelope.continuation`).
public struct Response {
    public let letter: UnsafeMutablePointer<fos_letter>
    @inlinable public init(letter: UnsafeMutablePointer<fos_letter>) { self.letter = letter }
    @inlinable public var envelope: UnsafeMutablePointer<fos_envelope> { Request(letter: letter).envelope }
    @inlinable public var message: UnsafeMutablePointer<fos_message> { Request(letter: letter).message }
    @inlinable public var continuation: ContinuationID { ContinuationID(rawValue: envelope.pointee.continuation) }
    @inlinable public var status: Int32 { message.pointee.status }
    @inlinable public var payload: UnsafeMutableRawBufferPointer { Request(letter: letter).payload }
}

public protocol Server: ~Copyable {
    /// A new request (a client's, another server's, or news from the microkernel: FOS_OP_CLIENT_GONE, FOS_OP_TICK).
    mutating func receive<K: Kernel>(_ request: Request, _ kernel: K)
    /// The answer to an earlier send of this server's.
    mutating func resume<K: Kernel>(_ response: Response, _ kernel: K)
    /// Fills the parts of `fos_statistics` that only the server knows.
    func describe(_ statistics: inout fos_statistics)
}

/// The servers that share one core, chosen by index. The composition conforms to it with a static switch, so the run
/// loop needs neither an existential nor knowledge of any service.
public protocol ServerGroup: ~Copyable {
    var count: Int { get }
    mutating func receive<K: Kernel>(server index: Int, _ request: Request, _ kernel: K)
    mutating func resume<K: Kernel>(server index: Int, _ response: Response, _ kernel: K)
    func describe(server index: Int, _ statistics: inout fos_statistics)
}
