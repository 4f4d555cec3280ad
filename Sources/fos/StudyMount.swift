// A mount for the time of a study, which goes with the study however that ends.
//
// Protocol: a process of its own (`fos study pages-mount`) mounts, says so in a line, and unmounts when its standard input
// ends. That is when the study lets go of it, or has died of anything.

import ArgumentParser
import FosCommand
import Glibc
import PageStudy

struct StudyMount {
    let name = "study-\(getpid())"
    private let keeper: WorkerProcess

    /// - Parameter memory: bytes of the memory fleet. None are kept in reserve: the study sets that.
    init(memory: Int) throws {
        do {
            keeper = try WorkerProcess([ownExecutable(), "study", "pages-mount", name, String(memory)])
            _ = try keeper.answer()
        } catch let error as StudyError {
            throw CommandFailure.usage("the study's own mount: \(error)")
        }
    }
}

/// The process that has the mount (started by `fos study pages`).
struct StudyPagesMountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pages-mount", abstract: "The mount of 'fos study pages' (started by it).", shouldDisplay: false)

    @Argument(help: "Name of the instance.") var name: String
    @Argument(help: "Bytes of its memory fleet.") var memory: Int

    func run() throws {
        // What ends the study on a terminal reaches this process too, which still has something to do. Programs that it starts
        // have the signals' usual meaning: handlers do not outlive exec.
        for number in [SIGINT, SIGTERM, SIGHUP] { signal(number) { _ in } }
        var template = Array("\(getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp")/fos-study-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { return say("error no directory for it: \(errorText(errno))") }
        let directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { rmdir(directory) }
        let mounting = spawn(
            ownExecutable(), ["fos", "mount", "--name", name, "--memory", String(memory), "--memory-reserve", "0", directory],
            output: STDERR_FILENO)
        guard mounting > 0, waitForExit(of: mounting) == 0 else { return say("error it cannot be made on \(directory)") }
        say("ready")
        while readLine() != nil {}
        let unmounting = spawn(ownExecutable(), ["fos", "umount", directory], output: STDERR_FILENO)
        if unmounting > 0 { waitForExit(of: unmounting) }
    }

    /// Nobody may be there any more to hear it, which changes nothing.
    private func say(_ line: String) {
        signal(SIGPIPE, SIG_IGN)
        _ = writeAll(line + "\n", to: STDOUT_FILENO)
    }
}
