// `fos sim`: the servers of fos on a simulated machine, with faults, checked.

import ArgumentParser
import CFosWire
import FosCommand
import Glibc
import Simulation
import Simulator

struct SimCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sim",
        abstract: "Run fos's servers on a simulated machine, and check what they do.",
        discussion: """
            A scenario says what the machine, the fleets, the workload and the faults are (docs/simulation.md has its \
            format); a seed decides everything else, so two runs of one seed are the same run, and have the same hash. The \
            answers that clients got are checked: some order of the operations must explain them all.

            Examples:
              fos sim                                             one run of the scenario that is built in
              fos sim --scenario Scenarios/renames.json --seeds 1-1000
              fos sim --scenario Scenarios/renames.json --seed 17 --trace
              fos sim --cores 64 --topology "pack:4 l3:2 core:8 pu:1"

            Exit status: 0 everything was explained; 1 something was not, or wrong use.
            """)

    @Option(name: .long, help: "The scenario, a JSON file.", completion: .file(extensions: ["json"]))
    var scenario: String?

    @Option(name: .long, help: "Cores of the machine, 1 to 4096, instead of the scenario's.")
    var cores: Int?

    @Option(name: .long, help: "mesh, xml:FILE, or an hwloc description, instead of the scenario's.")
    var topology: String?

    @Option(name: .long, help: "The seed of one run.")
    var seed: UInt64?

    @Option(name: .long, help: "Runs of all seeds from A to B.")
    var seeds: String?

    @Flag(name: .long, help: "After the run, print the last events of every server.")
    var trace = false

    @Option(name: .long, help: "How many events of each server --trace prints at most, 1 to 1048576.")
    var records = 256

    @Flag(name: .long, help: "Print JSON: an array with an object for each run.")
    var json = false

    @Flag(name: .long, help: "Measure what messages and requests cost on this machine, and print it as a calibration.")
    var calibrate = false

    func run() throws {
        if calibrate {
            guard let calibration = Calibrator.measure(seed: seed ?? 1) else {
                throw CommandFailure.usage("sim --calibrate: a message between two CPUs cannot be measured here: fos may use one CPU only")
            }
            print(calibration.text)
            return
        }
        guard (1...1 << 20).contains(records) else {
            throw CommandFailure.usage("sim --records \(records): a server keeps 1 to 1048576 events")
        }
        let range = try seedRange()
        let plan = try loadScenario()
        let machine: CoreTopology
        let costs: Costs
        do throws(ScenarioError) {
            machine = try plan.topology.topology(cores: plan.cores)
            costs = try loadCosts(plan)
        } catch { throw CommandFailure.usage("\(scenario ?? "scenario"): \(error)") }
        var results: [JSON] = []
        var failures = 0
        for seed in range {
            let run = ScenarioRun(plan, seed: seed, topology: machine, costs: costs, traceRecords: trace ? records : 0)
            let result = run.run()
            if !result.isCorrect { failures += 1 }
            if json {
                results.append(report(result))
            } else if range.count == 1 {
                printOne(result, plan)
            } else if !result.isCorrect {
                printFailure(result)
            }
            if trace { printTraces(run) }
        }
        if json { print(JSON.array(results).text) } else if range.count > 1 { print("\(range.count) runs, \(failures) failed") }
        if failures > 0 { throw ExitCode(1) }
    }

    // MARK: Arguments

    private func seedRange() throws -> ClosedRange<UInt64> {
        guard let seeds else { return (seed ?? 1)...(seed ?? 1) }
        guard seed == nil else { throw CommandFailure.usage("--seed and --seeds exclude each other") }
        let parts = seeds.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let first = UInt64(parts[0]), let last = UInt64(parts[1]), first <= last, last - first < 10_000_000 else {
            throw CommandFailure.usage("--seeds \(seeds): not a range such as 1-1000")
        }
        return first...last
    }

    private func loadScenario() throws -> Scenario {
        var plan = Scenario()
        do throws(ScenarioError) {
            if let scenario {
                guard let text = readText(scenario) else { throw ScenarioError(errorText(errno)) }
                plan = try Scenario(text: text)
            }
            if let cores {
                guard (1...4096).contains(cores) else { throw ScenarioError("--cores \(cores): a machine has 1 to 4096 cores") }
                plan.cores = cores
            }
            if let topology { plan.topology = try TopologyPlan(text: topology) }
        } catch { throw CommandFailure.usage("\(scenario ?? "scenario"): \(error)") }
        return plan
    }

    /// "chip" is built in; any other calibration is a file beside the scenario's.
    private func loadCosts(_ plan: Scenario) throws(ScenarioError) -> Costs {
        if plan.calibration == "chip" { return .onChip }
        var directory = scenario?.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") ?? ""
        if !directory.isEmpty { directory += "/" }
        let path = plan.calibration.hasPrefix("/") ? plan.calibration : directory + plan.calibration
        guard let text = readText(path) else { throw ScenarioError("calibration \(path): \(errorText(errno))") }
        do throws(ScenarioError) { return try Costs(calibration: text) } catch { throw ScenarioError("calibration \(path): \(error)") }
    }

    // MARK: Output

    private func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
    private func microseconds(_ time: VirtualTime) -> String {
        let tenths = time / 100_000
        return "\(grouped(tenths / 10)).\(tenths % 10) us"
    }

    private func printOne(_ result: RunResult, _ plan: Scenario) {
        print("scenario     \(plan.name)")
        print("seed         \(result.seed)")
        print("hash         \(hex(result.hash))")
        print("operations   \(grouped(UInt64(result.operations)))")
        print("virtual time \(microseconds(result.virtualTime))")
        print("messages     \(grouped(result.totals.messages)), \(grouped(result.totals.serverMessages)) of them between servers")
        print("hops         \(grouped(result.totals.hops))")
        let totals = result.totals
        print(
            "faults       \(totals.delayed) delayed, \(totals.refused) refused, \(totals.stale) stale, \(totals.retried) sent again, \(totals.answeredForTheDead) answered for the dead"
        )
        for change in result.fleetChanges {
            print(
                "fleet        \(change.from) to \(change.to) servers at \(microseconds(change.at * 1000)), in \(microseconds(change.nanoseconds * 1000)): "
                    + "\(grouped(change.slots)) slots, \(grouped(change.inodes)) inodes moved; \(grouped(change.forwarded)) requests forwarded, \(grouped(change.delayed)) delayed"
            )
        }
        print("checks       " + (result.isCorrect ? "passed" : "\(result.violations.count) failed"))
        if !result.isCorrect { printFailure(result) }
    }

    private func printFailure(_ result: RunResult) {
        print("seed \(result.seed) failed:")
        for violation in result.violations.prefix(10) { print("  \(violation)") }
        let repeated = (["fos sim"] + (scenario.map { ["--scenario \($0)"] } ?? []) + (cores.map { ["--cores \($0)"] } ?? [])
            + (topology.map { ["--topology \"\($0)\""] } ?? []) + ["--seed \(result.seed) --trace"]).joined(separator: " ")
        print("  again with: \(repeated)")
    }

    private func printTraces(_ run: ScenarioRun) {
        let kinds = ["request", "response", "sent", "replied", "notice"]
        for (name, records) in run.traces() {
            print("\n\(name): the last \(records.count) events")
            for record in records {
                let kind = Int(record.kind) < kinds.count ? kinds[Int(record.kind)] : String(record.kind)
                print(
                    "  \(grouped(record.time)) ns  \(kind) \(OperationNames.name(of: record.operation))  status \(record.status)  inode \(record.inode)  client \(record.client)"
                )
            }
        }
    }

    private func report(_ change: FleetChangeRecord) -> JSON {
        .object([
            ("from", .number(UInt64(change.from))), ("to", .number(UInt64(change.to))), ("endedNanoseconds", .number(change.at)),
            ("nanoseconds", .number(change.nanoseconds)), ("slots", .number(change.slots)), ("inodes", .number(change.inodes)),
            ("forwarded", .number(change.forwarded)), ("delayed", .number(change.delayed)),
        ])
    }

    private func report(_ result: RunResult) -> JSON {
        let totals = result.totals
        return .object([
            ("seed", .number(result.seed)), ("hash", .string(hex(result.hash))), ("correct", .bool(result.isCorrect)),
            ("operations", .number(UInt64(result.operations))), ("virtualNanoseconds", .number(result.virtualTime / 1000)),
            ("messages", .number(totals.messages)), ("serverMessages", .number(totals.serverMessages)), ("hops", .number(totals.hops)),
            ("delayed", .number(totals.delayed)), ("refused", .number(totals.refused)), ("stale", .number(totals.stale)),
            ("sentAgain", .number(totals.retried)), ("answeredForTheDead", .number(totals.answeredForTheDead)),
            ("fleetChanges", .array(result.fleetChanges.map(report))),
            ("violations", .array(result.violations.map { .string("\($0)") })),
        ])
    }
}
