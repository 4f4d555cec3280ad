// A failure of a fos command: one clear line, and the exit code that Linux tools give for it.

/// Exit codes as mount(8) has them.
public enum ExitStatus {
    public static let success: Int32 = 0
    /// Wrong arguments, or a question that has no answer (`fos status` of something that is not a fos mount).
    public static let usage: Int32 = 1
    /// A mount or an unmount that failed.
    public static let mountFailure: Int32 = 32
}

/// What happened, to what, and what to do; without the "fos: COMMAND: " that the command puts before it.
public struct CommandFailure: Error, CustomStringConvertible, Equatable, Sendable {
    public let description: String
    public let exitStatus: Int32

    public init(_ description: String, exitStatus: Int32) {
        self.description = description
        self.exitStatus = exitStatus
    }

    public static func usage(_ description: String) -> CommandFailure {
        CommandFailure(description, exitStatus: ExitStatus.usage)
    }

    public static func mount(_ description: String) -> CommandFailure {
        CommandFailure(description, exitStatus: ExitStatus.mountFailure)
    }
}
