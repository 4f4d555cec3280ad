// Frames of 2 MiB for the memory fleet: the one setting of Linux that they need, made where root runs fos, and given back.
//
// Linux gives memfds frames of 2 MiB only if shmem_enabled in /sys/kernel/mm/transparent_hugepage is `advise` (or more), and
// it is `never` by default. With `advise` nothing changes for memory that does not ask for them.
// Protocol: every supervisor of root holds a shared lock (flock(2)) on a file under /run, which says what the setting was
// before the first of them. The last one to end writes that back; after a crash of all, the next one to end does.

import FosCommand
import Glibc
import Logging

struct HugeFrames {
    private static let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
    private static let record = "/run/fos.shmem_enabled"
    /// Of the record, locked; -1: this process has made no claim.
    private let descriptor: Int32

    /// Makes the setting where it may be made, and says so.
    static func claim(_ logger: Logger) -> HugeFrames {
        guard let before = chosen() else {
            logger.info("memory in frames of 4 KiB: this kernel has no larger ones for memfds")
            return HugeFrames(descriptor: -1)
        }
        guard geteuid() == 0, let descriptor = openRecord() else {
            if before == "never" || before == "deny" {
                logger.notice("memory in frames of 4 KiB: \(setting) is '\(before)', and only root can set it to 'advise'")
            }
            return HugeFrames(descriptor: -1)
        }
        // Who has the lock alone is the first.
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0, before == "never" {
            if recorded(descriptor) == nil { _ = pwrite(descriptor, before, before.utf8.count, 0) }
            if set("advise") {
                logger.notice("memory also in frames of 2 MiB: \(setting) is 'advise' while fos runs, and was '\(before)'")
            } else {
                logger.notice("memory in frames of 4 KiB: \(setting) is '\(before)', and cannot be set: \(errorText(errno))")
            }
        }
        flock(descriptor, LOCK_SH)
        return HugeFrames(descriptor: descriptor)
    }

    /// The claim ends; if it was the last one, the setting is what it was.
    func giveBack(_ logger: Logger) {
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { return }
        // Somebody may have set it to something else meanwhile.
        if let before = Self.recorded(descriptor), Self.chosen() == "advise", Self.set(before) {
            logger.notice("\(Self.setting) is '\(before)' again")
        }
        unlink(Self.record)
    }

    /// By a daemon whose supervisor, and with it the claim, is gone.
    static func giveBackForSupervisor(_ logger: Logger) {
        if geteuid() == 0, access(record, F_OK) == 0, let descriptor = openRecord() { HugeFrames(descriptor: descriptor).giveBack(logger) }
    }

    /// What is in brackets: "always within_size [advise] never deny force".
    private static func chosen() -> String? {
        guard let text = readText(setting) else { return nil }
        return text.split(separator: " ").first { $0.hasPrefix("[") }.map { String($0.drop { $0 == "[" }.prefix { $0 != "]" }) }
    }

    private static func set(_ value: String) -> Bool {
        let file = open(setting, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        return write(file, value, value.utf8.count) == value.utf8.count
    }

    private static func recorded(_ descriptor: Int32) -> String? {
        var room = [UInt8](repeating: 0, count: 16)
        let count = pread(descriptor, &room, room.count, 0)
        guard count > 0 else { return nil }
        return String(decoding: room[..<count], as: UTF8.self)
    }

    /// The record, also if the last one to end takes it away meanwhile.
    private static func openRecord() -> Int32? {
        for _ in 0..<16 {
            let file = open(record, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard file >= 0, flock(file, LOCK_SH) == 0 else { return nil }
            var mine = stat()
            var named = stat()
            if fstat(file, &mine) == 0, stat(record, &named) == 0, mine.st_ino == named.st_ino { return file }
            close(file)
        }
        return nil
    }
}
