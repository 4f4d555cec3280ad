// The tables of `syscall` instructions (fos/sites.h) that the preload shim needs: where they are kept, and making them.

import CSyscallSites
import Glibc

public struct SiteTables {
    /// An absolute path.
    public let directory: String

    public init(directory: String) { self.directory = directory }

    /// FOS_CACHE, or XDG_CACHE_HOME/fos, or HOME/.cache/fos, of the environment or, without HOME, of the user's entry: as the
    /// shim looks for them (shim/preload/start.c).
    public static func standard() -> SiteTables {
        if let path = absolute("FOS_CACHE") { return SiteTables(directory: path) }
        if let path = absolute("XDG_CACHE_HOME") { return SiteTables(directory: path + "/fos") }
        let home = absolute("HOME") ?? getpwuid(geteuid()).map { String(cString: $0.pointee.pw_dir) } ?? "/"
        return SiteTables(directory: home + "/.cache/fos")
    }

    private static func absolute(_ variable: String) -> String? {
        guard let value = getenv(variable), value[0] == CChar(UInt8(ascii: "/")) else { return nil }
        return String(cString: value)
    }

    /// The libraries to redirect in a program started by this environment: those of this process, and where the program asks
    /// for another dynamic linker, the libc beside that.
    public static func libraries(for program: String?) -> [String] {
        var paths: [String] = []
        withUnsafeMutablePointer(to: &paths) { list in
            _ = fos_sites_loaded({ path, context in
                guard let path, let context else { return }
                context.assumingMemoryBound(to: [String].self).pointee.append(String(cString: path))
            }, list)
        }
        guard let program, let interpreter = interpreter(of: program) else { return paths }
        let libc = interpreter.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/libc.so.6"
        if !paths.contains(libc), access(libc, R_OK) == 0 { paths.append(libc) }
        return paths
    }

    private static func interpreter(of program: String) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { text in
            guard fos_sites_interpreter(program, text.baseAddress!, text.count) == 0, text[0] != 0 else { return nil }
            return String(cString: text.baseAddress!)
        }
    }

    /// Makes what is missing or damaged. The first thing that went wrong, or nil; libraries that can have no table (no build-id,
    /// another machine) are not an error, programs just run without the shim.
    public func makeMissing(for libraries: [String]) -> String? {
        var failure: String?
        for library in libraries {
            guard let identity = buildID(library), fos_sites_usable(directory, identity) == 0 else { continue }
            if let problem = createDirectory() { return problem }
            var table: UnsafeMutablePointer<fos_sites_header>?
            var bytes = 0
            var result = fos_sites_make(library, &table, &bytes)
            if result == -ENOEXEC || result == -ENODATA { continue }
            if result == 0 { result = fos_sites_store(directory, table, bytes) }
            free(table)
            if result != 0, failure == nil { failure = "\(directory): cannot keep the table of \(library): \(errorText(-result))" }
        }
        return failure
    }

    private func buildID(_ library: String) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 2 * FOS_SITES_BUILD_ID_MAX + 1) { text in
            fos_sites_build_id(library, text.baseAddress!) == 0 ? String(cString: text.baseAddress!) : nil
        }
    }

    /// Makes the directory and those above it, for this user alone.
    private func createDirectory() -> String? {
        var path = ""
        for part in directory.split(separator: "/") {
            path += "/" + part
            if mkdir(path, 0o700) != 0, errno != EEXIST {
                let reason = errorText(errno)
                if access(path, F_OK) != 0 { return "\(path): cannot be made: \(reason)" }
            }
        }
        return nil
    }
}
