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

/// `fos serve` on a directory of its own, under timeout(1): should it hang, and with it whoever uses the mount, it is
/// killed, and then all see errors.
final class Daemon {
    /// Of timeout(1), which ends with the daemon's exit status.
    private let process = Process()
    private var pid: pid_t = 0
    let name: String
    let directory: String
    private let logFile: URL

    static var isPossible: Bool { access("/dev/fuse", R_OK | W_OK) == 0 }

    /// Starts it and waits until the mount is there.
    /// - Parameters:
    ///   - cpus: for the option of this name; nil: the default.
    ///   - limit: seconds after which it is killed.
    init(sizeMiB: Int, cpus: String? = nil, limit: Int) throws {
        let stamp = "\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        name = "hostile-\(stamp)"
        directory = NSTemporaryDirectory() + "fos-hostile-\(stamp)"
        logFile = URL(fileURLWithPath: directory + ".log")
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        _ = FileManager.default.createFile(atPath: logFile.path, contents: nil)
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        var arguments = ["timeout", "-s", "KILL", "\(limit)", products.path + "/fos", "serve", "--name", name, "--size", "\(sizeMiB)M",
            // What is kept zeroed for programs is not growth.
            "--memory-reserve", "4M",
        ]
        if let cpus { arguments += ["--cpus", cpus] }
        // Another user's clients may come only if the owner lets them; root needs no permission of fuse.conf for it.
        if geteuid() == 0 { arguments.append("--allow-other") }
        process.arguments = arguments + [directory]
        let log = try FileHandle(forWritingTo: logFile)
        process.standardOutput = log
        process.standardError = log
        try process.run()
        for _ in 0..<200 {
            if isMounted {
                let parent = process.processIdentifier
                let children = try String(contentsOfFile: "/proc/\(parent)/task/\(parent)/children", encoding: .utf8)
                pid = children.split(separator: " ").first.flatMap { pid_t($0) } ?? 0
                // The counters come from servers, through workers of the mount: then all is there.
                if pid > 0, heldByNobody() == [] { return }
            }
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
        let proc = "/proc/\(pid)"
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
            let stat = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
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
        kill(pid, SIGTERM)
        for _ in 0..<200 where process.isRunning { usleep(50_000) }
        guard !process.isRunning, !isMounted else { return -1 }
        return process.terminationReason == .exit ? process.terminationStatus : -1
    }

    /// Leaves nothing behind, whatever has happened.
    func end() {
        if process.isRunning {
            if pid > 0 { kill(pid, SIGKILL) }
            kill(process.processIdentifier, SIGKILL)
        }
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
    private var read: String?

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
        if let read { return read }
        let bytes = (try? output.fileHandleForReading.readToEnd()) ?? Data()
        let text = String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        read = text
        return text
    }
}
