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

/// The file that execvp(3) would start for a command's name; nil if there is none.
public func executablePath(_ command: String) -> String? {
    if command.contains("/") { return access(command, X_OK) == 0 ? command : nil }
    let path = getenv("PATH").map { String(cString: $0) } ?? "/bin:/usr/bin"
    for folder in path.split(separator: ":", omittingEmptySubsequences: false) {
        let candidate = (folder.isEmpty ? "." : String(folder)) + "/" + command
        if access(candidate, X_OK) == 0 { return candidate }
    }
    return nil
}

/// Words as this process was given them, where they are its last arguments: a String has lost the bytes that are not UTF-8.
private func givenWords(_ words: [String]) -> [UnsafeMutablePointer<CChar>?]? {
    let all = CommandLine.unsafeArgv
    let start = Int(CommandLine.argc) - words.count
    guard start > 0, words.indices.allSatisfy({ index in all[start + index].map { String(cString: $0) == words[index] } ?? false }) else { return nil }
    return words.indices.map { all[start + $0] }
}

private func withArguments<Result>(_ arguments: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result) -> Result {
    if let given = givenWords(arguments) { return body(given + [nil]) }
    let argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for argument in argv { free(argument) } }
    return body(argv)
}

/// Becomes another program, found by PATH. Returns only if that fails: the errno.
public func replaceProcess(with command: [String]) -> Int32 {
    withArguments(command) { argv in
        execvp(argv[0]!, argv)
        return errno
    }
}

/// Starts a program, found by PATH, with everything that this process has. Its pid or a negative errno.
public func spawnHere(_ command: [String]) -> Int32 {
    withArguments(command) { argv in
        var pid: pid_t = 0
        let error = posix_spawnp(&pid, argv[0]!, nil, nil, argv, environ)
        return error == 0 ? pid : -error
    }
}

/// The child that signals are passed on to; written once, before the handlers are there.
private nonisolated(unsafe) var signalled: pid_t = 0

/// Leaves the terminal's signals to the child, which gets them itself, and passes the others on to it.
public func forwardSignals(to pid: Int32) {
    signalled = pid
    for number in [SIGINT, SIGQUIT] { signal(number, SIG_IGN) }
    for number in [SIGTERM, SIGHUP, SIGUSR1, SIGUSR2] { signal(number) { kill(signalled, $0) } }
}
