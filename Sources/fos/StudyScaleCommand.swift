// `fos study scale`: how fos scales to thousands of cores, in the simulator.

import ArgumentParser
import FosCommand
import Glibc
import ScaleStudy
import Simulation
import Simulator

struct StudyScaleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale",
        abstract: "Throughput and latency against cores, with the very servers of a mount in the simulator.",
        discussion: """
            Half of the cores have file servers, half have a client each that repeats one operation without pause. Printed are for each \
            workload and number of cores the operations a second, the efficiency against perfect scaling (a machine of two cores, times the \
            clients), median and 99th percentile of the latency, messages and hops of an operation, and where its time goes. The same \
            with one server for all, as with one lock, and with programs placed near their servers, at random, and far from them.

            Nothing is measured in real time: a seed gives the same figures on every machine. docs/scaling.md explains them.

            Exit status: 0 measured (also if a goal is missed); 1 wrong use, or it could not be measured.
            """)

    @Option(name: .long, help: ArgumentHelp("Sizes of the machine, 1 to 4096, separated by commas.", valueName: "n,n,..."))
    var cores = "1,4,16,64,255,1024,4096"

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Only these workloads, separated by commas: \(Workload.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "w,w,..."
        ))
    var workloads: String?

    @Option(name: .long, help: ArgumentHelp("Operations of each point.", valueName: "n"))
    var operations = 200_000

    @Option(name: .long, help: ArgumentHelp("Seed of all that is chosen by chance.", valueName: "s"))
    var seed: UInt64 = 1

    @Option(
        name: .long,
        help: ArgumentHelp(
            "What messages and requests cost: chip, the paper's network, or a file as 'fos sim --calibrate' prints it.", valueName: "file"),
        completion: .file(extensions: ["json"]))
    var calibration = "chip"

    @Option(name: .long, help: ArgumentHelp("Write the figure to FILE.", valueName: "file.svg"), completion: .file(extensions: ["svg"]))
    var plot: String?

    @Flag(name: .long, help: "Print JSON.")
    var json = false

    private func sizes() throws -> [Int] {
        let sizes = cores.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard !sizes.isEmpty, sizes.allSatisfy({ (1...4096).contains($0) }) else {
            throw ValidationError("--cores is a list of numbers from 1 to 4096, such as 1,16,255")
        }
        return Set(sizes).sorted()
    }
    private func chosen() throws -> [Workload] {
        guard let workloads else { return Workload.allCases }
        return try workloads.split(separator: ",", omittingEmptySubsequences: false).map { name in
            guard let workload = Workload(rawValue: String(name)) else {
                throw ValidationError("no workload '\(name)'; there are \(Workload.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            return workload
        }
    }

    func validate() throws {
        _ = try sizes()
        _ = try chosen()
        guard (1...100_000_000).contains(operations) else { throw ValidationError("--operations is 1 to 100000000") }
    }

    func run() throws {
        var study = Study()
        study.cores = try sizes()
        study.workloads = try chosen()
        study.options.operations = operations
        study.options.seed = seed
        // A machine of thousands of cores takes much memory.
        study.options.workers = min(4, max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        if calibration != "chip" {
            guard let text = readText(calibration) else { throw CommandFailure.usage("calibration \(calibration): \(errorText(errno))") }
            do throws(ScenarioError) { study.options.costs = try Costs(calibration: text) } catch {
                throw CommandFailure.usage("calibration \(calibration): \(error)")
            }
        }
        // Opened first: a name that cannot be written is said before anything is measured.
        let figure = try plot.map { path in
            let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
            guard file >= 0 else { throw CommandFailure.usage("\(path): \(errorText(errno))") }
            return file
        }
        let isTerminal = isatty(STDERR_FILENO) != 0
        let report: StudyReport
        do {
            report = try study.run { point in
                if isTerminal { writeError("\r\u{1b}[K\(point.workload.rawValue), \(point.cores) cores") }
            }
        } catch { throw CommandFailure.usage("\(error)") }
        if isTerminal { writeError("\r\u{1b}[K") }
        print(json ? report.json.text : report.text, terminator: json ? "\n" : "")
        if let figure, let plot {
            guard writeAll(report.svg, to: figure), close(figure) == 0 else { throw CommandFailure.usage("\(plot): \(errorText(errno))") }
        }
    }
}
