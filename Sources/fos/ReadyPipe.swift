// The pipe on which a daemon says once how its start went: "ready", or one line of error.

import FosCommand
import Glibc

struct ReadyPipe {
    static let ready = "ready"
    /// The number that spawned processes get it as (ccommand.h).
    static let passedDescriptor: Int32 = 3

    let descriptor: Int32

    /// The pipe that this process was started with; nil if descriptor 3 is not a pipe.
    init?(passed: Bool) {
        var status = stat()
        guard passed, fstat(Self.passedDescriptor, &status) == 0, status.st_mode & S_IFMT == S_IFIFO else { return nil }
        descriptor = Self.passedDescriptor
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }

    /// Says it, and closes the pipe. Line ends inside the text become spaces. A reader that has gone does not matter.
    func say(_ line: String) {
        let text = String(line.map { $0.isNewline ? " " : $0 }) + "\n"
        let bytes = Array(text.utf8)
        _ = write(descriptor, bytes, bytes.count)
        close(descriptor)
    }
}
