// The preload shim, libfos.so: where it is, and how a program is started under it.

import Glibc

public enum ShimLibrary {
    public static let fileName = "libfos.so"

    /// Beside this command as in a build folder, or in the library directory that belongs to its own as when installed.
    public static func path() throws(CommandFailure) -> String {
        let folder = ownExecutable().split(separator: "/").dropLast().map { "/" + $0 }.joined()
        for place in ["\(folder)/\(fileName)", "\(folder)/../lib/fos/\(fileName)"] where access(place, R_OK) == 0 {
            guard let resolved = realpath(place, nil) else { continue }
            defer { free(resolved) }
            return String(cString: resolved)
        }
        throw CommandFailure(
            "\(folder)/\(fileName): not there; build it with: make -C shim beside", exitStatus: RunExit.failure)
    }

    /// The value of LD_PRELOAD with the shim first, then what it was.
    public static func preload(_ library: String, before others: String?) throws(CommandFailure) -> String {
        // The dynamic linker knows no quoting.
        guard !library.contains(where: { $0 == " " || $0 == ":" }) else {
            throw CommandFailure(
                "\(library): a library whose path has a space or a colon cannot be preloaded; build fos in another directory",
                exitStatus: RunExit.failure)
        }
        guard let others, !others.isEmpty else { return library }
        let rest = others.split { $0 == ":" || $0 == " " }.filter { $0 != library }
        return ([library] + rest.map { String($0) }).joined(separator: ":")
    }
}

/// Exit codes of commands that run another one, as env(1) has them; otherwise they end as the command did.
public enum RunExit {
    /// fos itself failed.
    public static let failure: Int32 = 125
    /// The command was found and could not be started.
    public static let notExecutable: Int32 = 126
    public static let notFound: Int32 = 127
}
