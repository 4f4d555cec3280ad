// `fos study pages`: the paper's figure 1, on Linux and on fos.

import ArgumentParser
import FosCommand
import Glibc
import PageStudy

struct StudyPagesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pages",
        abstract: "Allocate memory and touch the first byte of every page, on Linux and on fos.",
        discussion: """
            The experiment of the paper's figure 1: each process allocates memory and touches the first byte of every page. \
            Measured are Linux's 4 KiB pages, its transparent huge pages, and the memory fleet's frames of 4 KiB and 2 MiB: once from a \
            reserve that is zeroed before, and once in the steady state, where what is freed must be zeroed again. The time of a \
            process is split into calls, faults, zeroing, and waiting. Methods take turns; results are medians, per GiB.

            Without --mount it starts a mount of its own. Frames of 2 MiB need root, or the setting that root's mounts make.

            Exit status: 0 measured (also if a goal is missed); 1 wrong use, or it could not be measured.
            """)

    @Option(name: .long, help: ArgumentHelp("Measure one process, and this many at once.", valueName: "n"))
    var processes = 2

    @Option(name: .long, help: ArgumentHelp("Memory that each allocates, in GiB; fractions are allowed.", valueName: "g"))
    var gib = 1.0

    @Option(name: .long, help: ArgumentHelp("Rounds that are counted.", valueName: "n"))
    var rounds = 5

    @Option(name: .long, help: ArgumentHelp("Write the figure to FILE.", valueName: "file.svg"), completion: .file(extensions: ["svg"]))
    var plot: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Use the memory fleet of the mount that DIR lies on; it needs --memory for twice of what is measured.", valueName: "dir"),
        completion: .directory)
    var mount: String?

    @Flag(name: .long, help: "Print JSON.")
    var json = false

    func validate() throws {
        guard (1...64).contains(processes) else { throw ValidationError("--processes is 1 to 64") }
        guard gib > 0, gib <= 1024 else { throw ValidationError("--gib is more than 0, and at most 1024") }
        guard (1...1000).contains(rounds) else { throw ValidationError("--rounds is 1 to 1000") }
    }

    func run() throws {
        var options = StudyOptions()
        options.processes = processes
        options.rounds = rounds
        // Whole frames of 2 MiB.
        options.bytes = max(1, Int(gib * 512)) << 21
        guard UInt64(options.memoryNeeded) <= physicalMemory() / 10 * 9 else {
            throw CommandFailure.usage(
                "the study needs \(ByteSize(bytes: UInt64(options.memoryNeeded)).text) of memory, and the machine has \(ByteSize(bytes: physicalMemory()).text); use a smaller --gib"
            )
        }
        // Opened first: a name that cannot be written is said before anything is measured.
        let figure = try plot.map { path in
            let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
            guard file >= 0 else { throw CommandFailure.usage("\(path): \(errorText(errno))") }
            return file
        }
        let results: [StudyResult]
        if let mount {
            guard let entry = try selectedMounts(mount).first, let name = entry.instanceName, let uid = entry.userID else {
                throw CommandFailure.usage("\(mount): not on a fos mount")
            }
            results = try measure(options, uid: uid, name: name)
        } else {
            let own = try StudyMount(memory: options.memoryNeeded)
            results = try withExtendedLifetime(own) { try measure(options, uid: geteuid(), name: own.name) }
        }
        let report = StudyReport(results)
        if json { print(report.json.text) } else { for line in report.lines { print(line) } }
        if let figure, let plot {
            guard writeAll(report.svg, to: figure), close(figure) == 0 else { throw CommandFailure.usage("\(plot): \(errorText(errno))") }
        }
    }

    private func measure(_ options: StudyOptions, uid: UInt32, name: String) throws -> [StudyResult] {
        let shows = isatty(STDERR_FILENO) != 0
        do {
            let study = try PageStudy(
                options, uid: uid, instance: name, worker: [ownExecutable(), "study", "pages-worker", String(uid), name],
                progress: { if shows { writeError("\r\u{1b}[K\($0)") } })
            if !study.hasHugeFrames { complain("study: no frames of 2 MiB are to be had; only root can enable them") }
            let results = try study.run()
            if shows { writeError("\r\u{1b}[K") }
            return results
        } catch let error as StudyError {
            throw CommandFailure.usage(error.description)
        }
    }
}

/// A process of the study (`Worker`).
struct StudyPagesWorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pages-worker", abstract: "One process of 'fos study pages' (started by it).", shouldDisplay: false)

    @Argument(help: "User of the instance.") var uid: UInt32
    @Argument(help: "Its name.") var name: String

    func run() throws { Worker(uid: uid, instance: name).run() }
}
