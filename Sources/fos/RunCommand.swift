// `fos run`: runs a command under the preload shim. `fos shim-path`: prints where the shim is.

import ArgumentParser
import CPlatform
import FosCommand
import Glibc
import Instance

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a command whose file system calls on fos mounts become messages.",
        discussion: """
            Preloads libfos.so into COMMAND and what it starts. Calls on a fos mount then go to its servers without the \
            kernel's file system in between; all other calls, and programs that the shim cannot serve (static or setuid ones), \
            run as ever and reach the same files through the mount. The first run after an update of libc takes a few tenths of \
            a second longer: libc's system calls are looked up once and kept in the cache directory (FOS_CACHE, or \
            XDG_CACHE_HOME/fos, or ~/.cache/fos).

            Examples:
              fos run -- make -j4
              fos run --stats -- git status
              fos run --memory -- python3 model.py
              fos run --near --mount ~/scratch -- ./solver

            With --memory, large private memory (mmap, the heap) comes from pages that the memory fleet has zeroed ahead, \
            so programs that touch much new memory fault less. It is taken when it is asked for, not when it is touched: \
            leave it off for programs that reserve much and use little.

            With --near, COMMAND and what it starts run only on CPUs near the servers of the mount: those that share a cache with \
            a core of fos, or else a package, and that fos does not use itself. Programs see fewer CPUs then (nproc), and on a machine where \
            all CPUs are equally far it only keeps them off the cores of fos.

            FOS_VERBOSE=1 in the environment says why a program runs without the shim.

            Exit status: that of COMMAND (128 plus the signal that ended it, with --stats); 125 fos itself failed; 126 COMMAND \
            cannot be started; 127 it is not found.
            """)

    @Option(
        name: .long, help: ArgumentHelp("Serve only the fos mount that DIR lies on; otherwise all.", valueName: "dir"),
        completion: .directory)
    var mount: String?

    @Option(
        name: .long, defaultAsFlag: "1M", parsing: .next,
        help: ArgumentHelp(
            "Serve private anonymous memory, in pieces of SIZE and more, from the memory fleet of a mount.", valueName: "size"))
    var memory: String? = nil

    @Flag(name: .long, help: "Run on CPUs near the servers of the mount (that of --mount, of the working directory, or the only one).")
    var near = false

    @Flag(name: .long, help: "After the end, print what was answered by messages, what by the kernel and why, to standard error.")
    var stats = false

    @Flag(name: .long, help: "End a program (status 125) at its first call on a mount that must go through the kernel.")
    var strict = false

    @Flag(name: .long, help: "Keep no attributes, entries or pages between calls.")
    var noCache = false

    @Argument(parsing: .postTerminator, help: "The command and its arguments, after --.")
    var command: [String] = []

    func validate() throws {
        if command.isEmpty { throw ValidationError("no command given; use: fos run -- COMMAND") }
    }

    func run() throws {
        try prepareToRun {
            try preloadShim(for: command, mount: mount, strict: strict)
            if near { try stayNear(mount) }
            if let memory { setenv("FOS_MEMORY", String(try memoryThreshold(memory)), 1) }
        }
        if strict { setenv("FOS_STRICT", "1", 1) }
        if noCache { setenv("FOS_NO_CACHE", "1", 1) }
        if stats { try runCounted() } else { throw startFailure(command, replaceProcess(with: command)) }
    }

    private func memoryThreshold(_ text: String) throws -> UInt64 {
        let size = try ByteSize(parsing: text, memory: physicalMemory()).bytes
        guard size >= 4096 else { throw CommandFailure.usage("--memory \(text): less than a page of 4096 bytes; give a size like 1M") }
        return size
    }

    /// Runs the command as a child, so that somebody is left to print the figures.
    private func runCounted() throws {
        let tally = try Tally()
        setenv("FOS_STATS", tally.path, 1)
        let start = ContinuousClock.now
        let status = try runChild(command)
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        writeError("\n" + tally.report(seconds: seconds).joined(separator: "\n") + "\n")
        throw ExitCode(status)
    }
}

/// Does what comes before a command: whatever fails, it is fos that failed, and not the command.
func prepareToRun(_ preparation: () throws -> Void) throws {
    do { try preparation() } catch let failure as CommandFailure {
        throw CommandFailure(failure.description, exitStatus: RunExit.failure)
    }
}

/// Prepares the environment so that what is started from now on runs under the shim.
func preloadShim(for command: [String], mount: String?, strict: Bool) throws {
    let library = try ShimLibrary.path()
    let preload = try ShimLibrary.preload(library, before: getenv("LD_PRELOAD").map { String(cString: $0) })
    let tables = SiteTables.standard()
    if let problem = tables.makeMissing(for: SiteTables.libraries(for: executablePath(command[0]))) {
        if strict { throw CommandFailure(problem, exitStatus: RunExit.failure) }
        complain("run: \(problem); running without the shim")
    }
    setenv("LD_PRELOAD", preload, 1)
    setenv("FOS_CACHE", tables.directory, 1)
    if let mount {
        guard let entry = try selectedMounts(mount).first else { throw CommandFailure.usage("\(shellQuoted(mount)): not on a fos mount") }
        setenv("FOS_MOUNT", entry.mountPoint, 1)
    }
}

/// Runs a command and waits for its end: its exit status, or 128 plus the signal that ended it.
func runChild(_ command: [String]) throws(CommandFailure) -> Int32 {
    let pid = spawnHere(command)
    guard pid > 0 else { throw startFailure(command, -pid) }
    forwardSignals(to: pid)
    return waitForExit(of: pid)
}

func startFailure(_ command: [String], _ error: Int32) -> CommandFailure {
    let found = error != ENOENT && error != ENOTDIR
    return CommandFailure("\(command[0]): \(errorText(error))", exitStatus: found ? RunExit.notExecutable : RunExit.notFound)
}

struct ShimPathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shim-path",
        abstract: "Print the path of the preload shim, for LD_PRELOAD.",
        discussion: """
            Also makes the shim ready for this system's libc, as fos run does, so that LD_PRELOAD alone serves afterwards:

              LD_PRELOAD=$(fos shim-path) git status

            Exit status: 0 printed and ready; 125 there is no shim, or it cannot be made ready.
            """)

    func run() throws {
        let library = try ShimLibrary.path()
        if let problem = SiteTables.standard().makeMissing(for: SiteTables.libraries(for: nil)) {
            throw CommandFailure(problem, exitStatus: RunExit.failure)
        }
        print(library)
    }
}
