// `fos trace`: runs a command under the preload shim and shows each of its calls on fos mounts, with the times of its steps.

import ArgumentParser
import FosCommand
import Glibc

struct TraceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract: "Run a command and show its calls on fos mounts, message by message, with the times of each step.",
        discussion: """
            The steps are those of a message's way (docs/architecture.md): 1 the program's call until the proxy has it, 2 building \
            the message, 3 finding its destination in the name cache, 4 handing it to the microkernel, 5 its transport to the core, \
            6 waiting in the server's mailbox, 7 the server, 8 the reply's way, 9 back to the program. Times are microseconds. A call without a message was answered from what the shim knows; \
            "kernel" means that the call went on to the kernel after all.

            With -o FILE the trace goes to FILE; if its name ends in .json, in the format that chrome://tracing and \
            ui.perfetto.dev read. Otherwise it is printed to standard error after the end.

            Exit status: that of COMMAND (128 plus the signal that ended it); 125 fos itself failed; 126 COMMAND cannot be \
            started; 127 it is not found.
            """)

    @Option(name: [.short, .long], help: ArgumentHelp("Write the trace to FILE.", valueName: "file"), completion: .file())
    var output: String?

    @Option(
        name: .long, help: ArgumentHelp("Serve only the fos mount that DIR lies on; otherwise all.", valueName: "dir"),
        completion: .directory)
    var mount: String?

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String] = []

    func validate() throws {
        if command.isEmpty { throw ValidationError("no command given; use: fos trace -- COMMAND") }
    }

    func run() throws {
        try prepareToRun { try preloadShim(for: command, mount: mount, strict: false) }
        let trace = try CallTrace()
        setenv("FOS_TRACE", trace.path, 1)
        // Opened first: a name that cannot be written is said before the command runs.
        let file = try output.map { try opened($0) }
        let status = try runChild(command)
        let text = output?.hasSuffix(".json") == true ? trace.chromeJSON().text : trace.textLines().joined(separator: "\n")
        if let file {
            guard writeAll(text + "\n", to: file), close(file) == 0 else {
                throw CommandFailure("\(output ?? ""): \(errorText(errno))", exitStatus: RunExit.failure)
            }
            if trace.lost > 0 { complain("trace: \(grouped(trace.lost)) more calls and messages found no room") }
        } else {
            writeError(text + "\n")
        }
        throw ExitCode(status)
    }

    private func opened(_ path: String) throws(CommandFailure) -> Int32 {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        guard file >= 0 else { throw CommandFailure("\(path): \(errorText(errno))", exitStatus: RunExit.failure) }
        return file
    }
}
