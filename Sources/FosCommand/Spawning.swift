// Starting other programs, and this one again, and waiting for them.

import CCommand
import Glibc

/// The path of this very program; by /proc/self/exe if it has been replaced or removed since.
public func ownExecutable() -> String {
    guard let path = linkTarget("/proc/self/exe"), access(path, X_OK) == 0 else { return "/proc/self/exe" }
    return path
}

/// Starts a program; see fos_command_spawn. Returns its pid or a negative errno.
public func spawn(_ path: String, _ arguments: [String], output: Int32 = -1, passing: Int32 = -1, newSession: Bool = false) -> Int32 {
    var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
    argv.append(nil)
    defer { for argument in argv { free(argument) } }
    return fos_command_spawn(path, argv, output, passing, newSession ? 1 : 0)
}

/// Waits for a child; its exit code, or 128 plus the signal that ended it.
@discardableResult
public func waitForExit(of pid: Int32) -> Int32 {
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 { guard errno == EINTR else { return 128 } }
    return exitCode(ofStatus: status)
}

/// The exit code in a wait status, or 128 plus the signal.
public func exitCode(ofStatus status: Int32) -> Int32 {
    let signal = status & 0x7f
    return signal == 0 ? (status >> 8) & 0xff : 128 + signal
}
