// What a call writes to standard error: fusermount3(1), which libfuse starts for an ordinary user, gives its reasons there
// and nowhere else.

import Glibc

enum ErrorOutput {
    /// Runs the body and gathers the lines that this process and its children write to standard error meanwhile; at most
    /// what a pipe holds, which no child of a mount fills. Without descriptors to spare nothing is gathered.
    static func gathered<Result>(_ body: () -> Result) -> (result: Result, lines: [String]) {
        var ends: [Int32] = [-1, -1]
        let standard = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
        guard standard >= 0, pipe(&ends) == 0 else {
            if standard >= 0 { close(standard) }
            return (body(), [])
        }
        _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
        // A child that outlives the body is not waited for.
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        dup2(ends[1], STDERR_FILENO)
        close(ends[1])
        let result = body()
        dup2(standard, STDERR_FILENO)
        close(standard)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(ends[0], &bytes, bytes.count)
        close(ends[0])
        let lines = bytes.prefix(max(0, count)).split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
        return (result, lines)
    }
}
