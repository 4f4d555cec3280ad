// How far the kernel reads ahead of a sequential reader on a mount.
//
// INIT can only lower what the kernel starts from, 128 KiB (fs/fuse/inode.c, process_init_reply). The mount's
// backing-device entry in sysfs can raise it, for root. Measured with dd over 128 MiB uncached: 170 MB/s at 128 KiB,
// 405 at 512, 424 at 1,024, 328 at 2,048 (one transfer a request is the most that one reply can carry).

import CFosWire
import CFuse
import Glibc

enum ReadAhead {
    static let kibibytes = Int(FOS_TRANSFER_BYTES_MAX) / 1024

    /// The sysfs file of the mount on `path`, nil if there is none. From the mount table: a stat of the mount would be a
    /// request to this very process, which nobody answers when the mount is ending.
    static func file(of path: String) -> String? {
        guard let table = fopen("/proc/self/mountinfo", "re") else { return nil }
        defer { fclose(table) }
        let escaped = path.replacing("\\", with: "\\134").replacing(" ", with: "\\040").replacing("\t", with: "\\011").replacing("\n", with: "\\012")
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { free(line) }
        var found: String?
        while getline(&line, &room, table) > 0, let text = line {
            // Number, parent, device, root, mount point. Of several mounts on one path the last is on top.
            let words = String(cString: text).split(separator: " ", maxSplits: 5)
            if words.count > 4, words[4] == escaped { found = "/sys/class/bdi/\(words[2])/read_ahead_kb" }
        }
        return found
    }

    /// Raises it if this user may; an ordinary user's mount keeps the kernel's.
    static func raise(on path: String) {
        guard geteuid() == 0, let file = file(of: path) else { return }
        let descriptor = open(file, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        let text = "\(kibibytes)"
        _ = write(descriptor, text, text.utf8.count)
        close(descriptor)
    }
}
