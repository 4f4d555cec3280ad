// Where the log of a background daemon goes.
//
// Root: /var/log/fos/NAME.log. Others: $XDG_STATE_HOME/fos or ~/.local/state/fos, or /tmp/fos-UID if there is no home.
// Invariant: the folder belongs to the user, and others cannot write to it or put a link there.

import FosCommand
import Glibc

struct LogFile {
    let descriptor: Int32
    let path: String

    /// A log this large is set aside as NAME.log.1 when a new daemon starts.
    static let sizeLimit = 1 << 20

    static func open(for name: String) throws(CommandFailure) -> LogFile {
        var lastError: Int32 = ENOENT
        for folder in folders() {
            guard prepare(folder) else {
                lastError = errno
                continue
            }
            let path = "\(folder)/\(name).log"
            var status = stat()
            if lstat(path, &status) == 0, status.st_size > sizeLimit { rename(path, path + ".1") }
            let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0o600)
            if descriptor >= 0 { return LogFile(descriptor: descriptor, path: path) }
            lastError = errno
        }
        throw .mount("the log file cannot be made: \(errorText(lastError)); use --foreground, or set XDG_STATE_HOME")
    }

    private static func folders() -> [String] {
        let user = geteuid()
        if user == 0 { return ["/var/log/fos", "/tmp/fos-0"] }
        var folders: [String] = []
        if let state = getenv("XDG_STATE_HOME").map({ String(cString: $0) }), state.hasPrefix("/") { folders.append(state + "/fos") }
        if let home = getenv("HOME").map({ String(cString: $0) }), home.hasPrefix("/") { folders.append(home + "/.local/state/fos") }
        return folders + ["/tmp/fos-\(user)"]
    }

    /// Makes the folder and those above it; true if it is a directory of this user's that others cannot write to.
    private static func prepare(_ folder: String) -> Bool {
        var path = ""
        for part in folder.split(separator: "/") {
            path += "/" + part
            if mkdir(path, 0o700) != 0, errno != EEXIST, errno != EACCES, errno != EROFS { return false }
        }
        var status = stat()
        guard lstat(folder, &status) == 0 else { return false }
        guard status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid(), status.st_mode & 0o022 == 0 else {
            errno = EPERM
            return false
        }
        return true
    }
}
