// A child process of the study that is spoken to over pipes: a worker, or the keeper of its mount. It ends when its input does.

import Glibc

public final class WorkerProcess {
    private let pid: pid_t
    private let input: Int32
    private let output: UnsafeMutablePointer<FILE>

    /// Starts `command`, whose standard input and output are this side's pipes.
    public init(_ command: [String]) throws {
        var toChild: [Int32] = [-1, -1]
        var fromChild: [Int32] = [-1, -1]
        guard pipe(&toChild) == 0, pipe(&fromChild) == 0 else {
            throw StudyError("no pipes: \(String(cString: strerror(errno)))")
        }
        for end in toChild + fromChild { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        let arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var child: pid_t = 0
        let error = posix_spawn(&child, arguments[0]!, &actions, nil, arguments, environ)
        close(toChild[0])
        close(fromChild[1])
        input = toChild[1]
        guard error == 0, let stream = fdopen(fromChild[0], "r") else {
            close(toChild[1])
            throw StudyError("\(command[0]): \(String(cString: strerror(error)))")
        }
        pid = child
        output = stream
    }

    deinit {
        close(input)
        fclose(output)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
    }

    func tell(_ line: String) throws {
        let bytes = Array((line + "\n").utf8)
        guard write(input, bytes, bytes.count) == bytes.count else { throw StudyError("a worker has ended") }
    }

    /// The next line that it says; what begins with "error " is thrown.
    public func answer() throws -> String {
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        let count = getline(&line, &room, output)
        defer { free(line) }
        guard count > 0, let line else { throw StudyError("a worker has ended") }
        let text = String(cString: line).split(separator: "\n").joined()
        guard !text.hasPrefix("error ") else { throw StudyError(String(text.dropFirst(6))) }
        return text
    }

    func split() throws -> Split {
        let parts = try answer().split(separator: " ").compactMap { Double($0) }
        guard parts.count == 4 else { throw StudyError("a worker gave no figures") }
        return Split(call: parts[0], fault: parts[1], zeroing: parts[2], waiting: parts[3])
    }
}
