// A daemon under test, and the helper processes that are its clients, as child processes.

import Foundation

/// The directory that the build puts executables into: the test's own.
let products = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()

/// What the kernel says of a process.
struct Usage {
    var residentKiB: Int
    var threads: Int
    var descriptors: Int
}

struct DaemonError: Error, CustomStringConvertible {
    let description: String
}

/// `fos serve` on a directory of its own.
final class Daemon {
    let process = Process()
    let name: String
    let directory: String
    private let logFile: URL

    static var isPossible: Bool { access("/dev/fuse", R_OK | W_OK) == 0 }

    /// Starts it and waits until the mount is there.
    init(sizeMiB: Int) throws {
        let stamp = "\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        name = "hostile-\(stamp)"
        directory = NSTemporaryDirectory() + "fos-hostile-\(stamp)"
        logFile = URL(fileURLWithPath: directory + ".log")
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        _ = FileManager.default.createFile(atPath: logFile.path, contents: nil)
        process.executableURL = products.appendingPathComponent("fos")
        process.arguments = ["serve", "--name", name, "--size", "\(sizeMiB)M", directory]
        // Another user's clients may come only if the owner lets them; root needs no permission of fuse.conf for it.
        if geteuid() == 0 { process.arguments?.insert("--allow-other", at: 1) }
        let log = try FileHandle(forWritingTo: logFile)
        process.standardOutput = log
        process.standardError = log
        try process.run()
        for _ in 0..<200 {
            if isMounted { return }
            guard process.isRunning else { break }
            usleep(50_000)
        }
        let said = self.log()
        end()
        throw DaemonError(description: "the daemon did not start:\n\(said)")
    }

    var isRunning: Bool { process.isRunning }

    private var isMounted: Bool {
        let table = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        return table.contains(" \(directory) ")
    }

    func log() -> String { (try? String(contentsOf: logFile, encoding: .utf8)) ?? "" }

    func usage() -> Usage? {
        let proc = "/proc/\(process.processIdentifier)"
        guard let status = try? String(contentsOfFile: proc + "/status", encoding: .utf8),
            let descriptors = try? FileManager.default.contentsOfDirectory(atPath: proc + "/fd")
        else { return nil }
        func field(_ key: String) -> Int {
            let line = status.split(separator: "\n").first { $0.hasPrefix(key + ":") }
            return line.flatMap { Int($0.split(whereSeparator: \.isWhitespace)[1]) } ?? 0
        }
        return Usage(residentKiB: field("VmRSS"), threads: field("Threads"), descriptors: descriptors.count)
    }

    /// Part of one CPU used over some seconds.
    func processorShare(over seconds: UInt32) -> Double {
        func ticks() -> Int {
            let stat = (try? String(contentsOfFile: "/proc/\(process.processIdentifier)/stat", encoding: .utf8)) ?? ""
            let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
            return fields.count > 12 ? (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0) : 0
        }
        let start = ticks()
        sleep(seconds)
        return Double(ticks() - start) / Double(sysconf(Int32(_SC_CLK_TCK))) / Double(seconds)
    }

    /// Counters, from the mount, of what only living clients can hold, where they are not zero.
    func heldByNobody() -> [String] {
        guard let text = try? String(contentsOfFile: directory + "/.fos/counters", encoding: .utf8) else { return ["no counters"] }
        var held: [String] = []
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: "\t")
            guard fields.count == 3, fields[1] == "locks" || fields[1] == "continuations_now" else { continue }
            if fields[2] != "0" { held.append(String(line)) }
        }
        return held
    }

    /// SIGTERM; the exit status, -1 if it does not end within 10 s or leaves its mount.
    func stop() -> Int32 {
        guard process.isRunning else { return -1 }
        process.terminate()
        for _ in 0..<200 where process.isRunning { usleep(50_000) }
        guard !process.isRunning, !isMounted else { return -1 }
        return process.terminationReason == .exit ? process.terminationStatus : -1
    }

    /// Leaves nothing behind, whatever has happened.
    func end() {
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
        if isMounted {
            let unmount = Process()
            unmount.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            unmount.arguments = ["fusermount3", "-u", "-z", directory]
            try? unmount.run()
            unmount.waitUntilExit()
        }
        rmdir(directory)
        unlink(logFile.path)
    }
}

/// A `fos-hostile` process.
final class Helper {
    /// Exit status of a helper that saw the daemon do what it must not.
    static let violation: Int32 = 1

    let seed: UInt64
    private let process = Process()
    private let output = Pipe()

    init(_ kind: String, _ daemon: Daemon, seed: UInt64, milliseconds: Int, user: Int? = nil) {
        self.seed = seed
        process.executableURL = products.appendingPathComponent("fos-hostile")
        process.arguments = [kind, "\(geteuid())", daemon.name, "\(seed)", "\(milliseconds)"] + (user.map { ["\($0)"] } ?? [])
        process.standardOutput = output
        process.standardError = output
        do { try process.run() } catch { fatalError("fos-hostile cannot be started: \(error)") }
    }

    /// nil while it runs; the exit status, or 128 plus the signal.
    func statusIfEnded() -> Int32? {
        guard !process.isRunning else { return nil }
        return process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus
    }

    func kill() { Glibc.kill(process.processIdentifier, SIGKILL) }

    func wait() -> Int32 {
        process.waitUntilExit()
        return statusIfEnded()!
    }

    /// What it has said; only after its end.
    func said() -> String {
        String(decoding: (try? output.fileHandleForReading.readToEnd()) ?? Data(), as: UTF8.self)
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
