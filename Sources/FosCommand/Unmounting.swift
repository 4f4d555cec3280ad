// Taking a mount away: by umount2(2) as root, by fusermount3 as an ordinary user, as FUSE demands.

import Glibc

public enum UnmountOutcome: Equatable, Sendable {
    case unmounted
    case busy
    case failed(String)
}

/// Unmounts a canonical path.
/// - Parameter lazy: detach now; the file system ends when its last user lets go.
public func unmount(_ path: String, lazy: Bool) -> UnmountOutcome {
    if geteuid() == 0 {
        guard umount2(path, lazy ? Int32(MNT_DETACH) : 0) != 0 else { return .unmounted }
        return errno == EBUSY ? .busy : .failed(errorText(errno))
    }
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { return .failed(errorText(errno)) }
    defer { close(ends[0]) }
    let places: [String] = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"]
    let program = places.first { access($0, X_OK) == 0 }
    let pid = spawn(program ?? "/usr/bin/fusermount3", ["fusermount3", "-u"] + (lazy ? ["-z"] : []) + ["--", path], output: ends[1])
    close(ends[1])
    guard pid > 0 else { return .failed("fusermount3: \(errorText(-pid))") }
    var said: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = read(ends[0], &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { break }
        said.append(contentsOf: buffer[..<count])
    }
    guard waitForExit(of: pid) != 0 else { return .unmounted }
    let text = String(decoding: said, as: UTF8.self).trimmed
    return text.contains("busy") ? .busy : .failed(text.isEmpty ? "fusermount3 failed" : text)
}
