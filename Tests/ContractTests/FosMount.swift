// FosMount: a fos mount of its own for a run of the suite, served by the built command.
//
// Protocol: `start` returns when the directory is mounted; `end` unmounts. The command runs under a small shell that
// waits for the test process's end of a pipe: however this process ends, the pipe closes and the mount goes.

import CContractSupport
import Foundation
import Testing

/// Entries from which on directories are sharded, if the run says so (FOS_TEST_SHARD_THRESHOLD): the whole suite runs either way.
let contractShards = ProcessInfo.processInfo.environment["FOS_TEST_SHARD_THRESHOLD"].flatMap { Int($0) }

final class FosMount {
    let directory: String
    private let log: String
    private var process: Int32 = -1
    /// This process's end of the pipe.
    private var leash: Int32 = -1

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
        directory = (ProcessInfo.processInfo.environment["FOS_TEST_TMP"] ?? "/tmp") + "/fos-test.contract-\(stamp)"
        log = directory + ".log"
        guard mkdir(directory, 0o755) == 0 else { throw Failure(description: "cannot make \(directory)") }
        let script = """
            binary=$1; directory=$2; shift 2
            "$binary" serve "$@" "$directory" & server=$!
            read -r line
            kill "$server"
            ( sleep 30; kill -9 "$server" ) & watch=$!
            wait "$server"; status=$?
            kill "$watch"
            if mountpoint -q "$directory"; then fusermount3 -u -z "$directory"; status=99; fi
            rmdir "$directory"
            exit "$status"
            """
        let arguments =
            ["sh", "-c", script, "sh", Self.binary, directory, "--name", "contract-\(stamp)", "--size", size, "--allow-other"] + options
            + (options.contains { $0.hasPrefix("shards=") } ? [] : contractShards.map { ["-o", "shards=\($0)"] } ?? [])
        var ends: [Int32] = [-1, -1]
        let output = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard output >= 0, pipe(&ends) == 0 else { throw Failure(description: "no pipe or log for a mount") }
        leash = ends[1]
        _ = fcntl(leash, F_SETFD, FD_CLOEXEC)
        var pointers = arguments.map { strdup($0) } + [nil]
        process = contract_spawn("/bin/sh", &pointers, ends[0], output)
        for pointer in pointers { free(pointer) }
        close(ends[0])
        close(output)
        for _ in 0..<800 {
            if isMounted { return }
            usleep(25_000)
        }
        let said = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
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

    /// The clients that are connected besides the mount itself.
    func clients() throws -> Int {
        guard let answer = popen("'\(Self.binary)' status --json '\(directory)'", "re") else { throw Failure(description: "no status") }
        defer { pclose(answer) }
        var text = [UInt8](repeating: 0, count: 65536)
        let count = fread(&text, 1, text.count, answer)
        let object = try JSONSerialization.jsonObject(with: Data(text[0..<count])) as? [[String: Any]]
        guard let clients = object?.first?["clients"] as? Int else { throw Failure(description: "no clients in the status") }
        return clients
    }

    /// Ends the server and the mount, and records an issue with what the server has said if it did not end well.
    func expectGoodEnd() {
        let said = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        let status = end()
        if status != 0 { Issue.record("the server on \(directory) ended with status \(status), and had said:\n\(said)") }
    }

    /// Ends the server and the mount; the server's exit status, 0 if it ended well and took its mount with it.
    @discardableResult
    func end() -> Int32 {
        close(leash)
        let status = process > 0 ? contract_wait(process) : process
        unlink(log)
        return status
    }
}
