// FosMount: a fos mount of its own for a run of the suite, served by the built command.
//
// Protocol: `start` returns when the directory is mounted; `end` unmounts. The command runs under a small shell that
// waits for the test process's end of a pipe: however this process ends, the pipe closes and the mount goes.

import Foundation

final class FosMount {
    let directory: String
    private let process = Process()
    private let leash = Pipe()
    private let log: URL

    static var isPossible: Bool { access("/dev/fuse", F_OK) == 0 && geteuid() == 0 }

    /// The command: FOS_BINARY, or what was built beside the tests.
    static var binary: String {
        if let given = ProcessInfo.processInfo.environment["FOS_BINARY"] { return given }
        let test = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: test).deletingLastPathComponent().appendingPathComponent("fos").path
    }

    struct Failure: Error, CustomStringConvertible { let description: String }

    /// - Parameter options: further arguments of the command.
    init(size: String = "1G", options: [String] = []) throws {
        let stamp = "\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        directory = "/tmp/fos-test.contract-\(stamp)"
        log = URL(fileURLWithPath: directory + ".log")
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        _ = FileManager.default.createFile(atPath: log.path, contents: nil)
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        let script = """
            binary=$1; directory=$2; shift 2
            "$binary" serve "$@" "$directory" & server=$!
            read -r line
            kill "$server" 2>/dev/null
            ( sleep 20; kill -9 "$server" ) 2>/dev/null & watch=$!
            wait "$server"; kill "$watch" 2>/dev/null
            mountpoint -q "$directory" && fusermount3 -u -z "$directory"
            rmdir "$directory"
            """
        process.arguments = ["-c", script, "sh", Self.binary, directory, "--name", "contract-\(stamp)", "--size", size, "--allow-other"] + options
        process.standardInput = leash
        let output = try FileHandle(forWritingTo: log)
        process.standardOutput = output
        process.standardError = output
        try process.run()
        for _ in 0..<400 {
            if isMounted { return }
            guard process.isRunning else { break }
            usleep(25_000)
        }
        let said = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
        end()
        throw Failure(description: "'\(Self.binary) serve' does not mount: \(said)")
    }

    private var isMounted: Bool {
        ((try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? "").contains(" \(directory) ")
    }

    var fileSystem: PosixFileSystem {
        PosixFileSystem(
            name: "a fos mount", root: directory,
            features: Features.local.subtracting(.temporaryFiles).union([.pageBlocks, .zeroRange, .refusesCollapse]))
    }

    func end() {
        try? leash.fileHandleForWriting.close()
        if process.isRunning { process.waitUntilExit() }
        unlink(log.path)
    }
}
