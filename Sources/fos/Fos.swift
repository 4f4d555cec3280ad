// The fos command: one subcommand a file; this one holds the root and the way out.
//
// Protocol: messages to standard error are "fos: COMMAND: what happened, to what; what to do"; exit codes are those of
// mount(8): 0 success, 1 wrong use, 32 a mount or unmount that failed.

import ArgumentParser
import FosCommand
import Glibc

let fosVersion = "0.1.0"

struct Fos: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fos",
        abstract: "A factored operating system's file service, mounted like any file system.",
        discussion: """
            fos serves files from fleets of single-threaded servers, each bound to a core, that talk only by messages. \
            Any program can use a fos mount; nothing is written to a disk, so its content ends with the mount.

            Examples:
              fos mount ~/scratch          start a fos filesystem and mount it
              fos run -- make              run a program with its calls on the mount as messages
              fos status                   what is mounted, and how it does
              fos umount ~/scratch         end it

            Shell completions: fos --generate-completion-script bash (or zsh, fish) prints a script for your shell.
            """,
        version: fosVersion,
        subcommands: [
            MountCommand.self, UnmountCommand.self, RunCommand.self, TraceCommand.self, ShimPathCommand.self, StatusCommand.self,
            NamesCommand.self,
            FleetCommand.self, StudyCommand.self, SimCommand.self,
            SuperviseCommand.self, ServeCommand.self,
        ])
}

@main
enum Main {
    static func main() {
        let program = CommandLine.arguments[0].split(separator: "/").last.map(String.init) ?? "fos"
        let arguments = Array(CommandLine.arguments.dropFirst())
        let isSubcommand = Fos.configuration.subcommands.contains { $0.configuration.commandName == arguments.first }
        if MountHelperCall.programNames.contains(program) || (!isSubcommand && MountHelperCall.isCallOfMountFuse(arguments)) {
            finish(command: "mount") { () throws(CommandFailure) in try mountAsHelper(arguments) }
        }
        do {
            try requireText(arguments)
            var command = try Fos.parseAsRoot(arguments)
            try command.run()
            exit(ExitStatus.success)
        } catch let failure as CommandFailure {
            complain("\(subcommand(arguments)): \(failure.description)")
            exit(failure.exitStatus)
        } catch let code as ExitCode {
            exit(code.rawValue)
        } catch {
            let text = Fos.fullMessage(for: error)
            // Help, the version and completions arrive here too, as successes.
            if Fos.exitCode(for: error).isSuccess {
                print(text)
                exit(ExitStatus.success)
            }
            complain(oneLine(text))
            exit(ExitStatus.usage)
        }
    }

    /// The parser's error and its hint as one line: "Unknown option '--x'; see 'fos mount --help'".
    private static func oneLine(_ text: String) -> String {
        let lines = text.split(separator: "\n").map(String.init)
        var message = lines.first ?? "wrong arguments"
        if message.hasPrefix("Error: ") { message.removeFirst(7) }
        let hint = lines.last?.split(separator: "'", omittingEmptySubsequences: false)
        guard let hint, hint.count == 3, hint[1].hasSuffix("--help") else { return message }
        return message + "; see '\(hint[1])'"
    }

    /// Paths are text to fos. The arguments of a command that it runs are none of its business.
    private static func requireText(_ arguments: [String]) throws(CommandFailure) {
        for (index, argument) in arguments.enumerated() {
            if argument == "--", ["run", "trace"].contains(arguments.first) { return }
            guard let given = CommandLine.unsafeArgv[index + 1], String(validatingCString: given) == nil else { continue }
            throw .usage("\(shellQuoted(argument)): not in UTF-8; fos takes no other names of directories")
        }
    }

    private static func subcommand(_ arguments: [String]) -> String {
        let first = arguments.first ?? "fos"
        return ["supervise", "serve"].contains(first) ? "mount" : first
    }
}

/// Runs the body, reports its failure, and exits.
func finish(command: String, _ body: () throws(CommandFailure) -> Void) -> Never {
    do throws(CommandFailure) {
        try body()
        exit(ExitStatus.success)
    } catch {
        complain("\(command): \(error.description)")
        exit(error.exitStatus)
    }
}

/// One line to standard error: "fos: …".
func complain(_ line: String) { writeError("fos: \(line)\n") }

func writeError(_ text: String) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
        let count = bytes.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress!, $0.count) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        bytes = bytes.dropFirst(count)
    }
}

/// Bytes of physical memory.
func physicalMemory() -> UInt64 {
    UInt64(max(0, sysconf(Int32(_SC_PHYS_PAGES)))) * UInt64(max(0, sysconf(Int32(_SC_PAGESIZE))))
}
