// Contract: one case of the suite, and what a case has at hand.
//
// Protocol: a case gets a fresh directory that everybody may write, does its work there and says what it expects; an
// unexpected errno or value is recorded with the case and the implementation, and the case goes on.

import Glibc
import Testing

struct ContractCase: Sendable, CustomTestStringConvertible, CustomStringConvertible {
    let topic: String
    let name: String
    let needs: Features
    let body: @Sendable (Contract) throws -> Void

    init(_ topic: String, _ name: String, needs: Features = [], _ body: @escaping @Sendable (Contract) throws -> Void) {
        self.topic = topic
        self.name = name
        self.needs = needs
        self.body = body
    }
    var description: String { "\(topic): \(name)" }
    var testDescription: String { description }

    /// Runs the case on an implementation, in a new directory. False if the implementation lacks what it needs.
    @discardableResult
    func run(on fileSystem: any FileSystemUnderTest) -> Bool {
        guard fileSystem.features.isSuperset(of: needs) else { return false }
        let contract = Contract(fileSystem, self)
        do {
            try contract.prepare()
            try body(contract)
        } catch {
            contract.record("unexpected \(error)", #_sourceLocation)
        }
        contract.finish()
        return true
    }
}

final class Contract {
    let fs: any FileSystemUnderTest
    let title: String
    /// Of this case, absolute.
    let base: String
    private var handles: [Handle] = []
    nonisolated(unsafe) private static var count = 0

    init(_ fileSystem: any FileSystemUnderTest, _ test: ContractCase) {
        fs = fileSystem
        title = "\(test) on \(fileSystem.name)"
        Contract.count += 1
        base = "/case-\(Contract.count)"
    }

    func prepare() throws {
        fs.user = .root
        fs.umask = 0
        try fs.mkdir(base, 0o755)
        try fs.chmod(base, 0o777)
    }
    func finish() {
        fs.user = .root
        fs.umask = 0
        for handle in handles { try? fs.close(handle) }
        Tree.remove(fs, base)
    }

    func path(_ name: String) -> String { base + "/" + name }

    // MARK: Expectations

    func record(_ text: String, _ location: SourceLocation) { Issue.record("\(title): \(text)", sourceLocation: location) }

    func expect(_ condition: Bool, _ text: @autoclosure () -> String = "", _ location: SourceLocation = #_sourceLocation) {
        if !condition { record("does not hold \(text())", location) }
    }
    func equal<Value: Equatable>(
        _ found: Value, _ wanted: Value, _ text: @autoclosure () -> String = "", _ location: SourceLocation = #_sourceLocation
    ) {
        if found != wanted { record("\(text()) is \(found), must be \(wanted)", location) }
    }
    /// The call must fail with an errno.
    func fails(
        _ code: Int32, _ text: @autoclosure () -> String = "", _ location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
    ) {
        do {
            try body()
            record("\(text()) succeeds, must fail with \(Errno(code))", location)
        } catch let error as Errno {
            if error.code != code { record("\(text()) fails with \(error), must be \(Errno(code))", location) }
        } catch {
            record("\(text()) throws \(error)", location)
        }
    }
    /// The errno of a call, 0 for success.
    func outcome(_ body: () throws -> Void) -> Int32 {
        do {
            try body()
            return 0
        } catch { return (error as? Errno)?.code ?? -1 }
    }

    // MARK: Short forms

    /// Opens, and closes at the end of the case at the latest.
    func open(_ name: String, _ flags: Int32 = O_RDWR, _ mode: UInt32 = 0o644) throws -> Handle {
        let handle = try fs.open(path(name), flags, mode)
        handles.append(handle)
        return handle
    }
    func close(_ handle: Handle) throws {
        handles.removeAll { $0 == handle }
        try fs.close(handle)
    }
    func file(_ name: String, _ text: String = "", mode: UInt32 = 0o644) throws { try fs.store(path(name), text, mode) }
    func mkdir(_ name: String, _ mode: UInt32 = 0o755) throws { try fs.mkdir(path(name), mode) }
    func status(_ name: String) throws -> Status { try fs.status(path(name), follow: true) }
    func lstatus(_ name: String) throws -> Status { try fs.status(path(name), follow: false) }
    func text(_ name: String) throws -> String { try fs.text(path(name)) }
    func names(_ name: String = "") throws -> [String] { try fs.list(name.isEmpty ? base : path(name)).map(\.name) }
    func exists(_ name: String) -> Bool { (try? fs.status(path(name), follow: false)) != nil }
    func acting(_ user: User, _ body: () throws -> Void) rethrows {
        let before = fs.user
        fs.user = user
        defer { fs.user = before }
        try body()
    }
}

/// The kinds of thing that a name can be, for the matrices.
enum Kind: String, CaseIterable, Sendable {
    case none, file, emptyDirectory, fullDirectory, linkToFile, linkToDirectory, danglingLink, fifo, socket

    var isDirectory: Bool { self == .emptyDirectory || self == .fullDirectory }

    /// What a link by this name leads to: beside it.
    static func target(_ name: String) -> String {
        let parts = name.split(separator: "/")
        return parts.dropLast().map { $0 + "/" }.joined() + ".target-" + (parts.last ?? "")
    }

    /// Makes one by a name.
    func make(_ name: String, _ c: Contract) throws {
        switch self {
        case .none: break
        case .file: try c.file(name, "contents of \(name)")
        case .emptyDirectory: try c.mkdir(name)
        case .fullDirectory:
            try c.mkdir(name)
            try c.file(name + "/inside", "x")
        case .linkToFile:
            try c.file(Kind.target(name), "linked")
            try c.fs.symlink(String(Kind.target(name).split(separator: "/").last ?? ""), c.path(name))
        case .linkToDirectory:
            try c.mkdir(Kind.target(name))
            try c.fs.symlink(String(Kind.target(name).split(separator: "/").last ?? ""), c.path(name))
        case .danglingLink: try c.fs.symlink("nowhere", c.path(name))
        case .fifo: try c.fs.mknod(c.path(name), FileType.fifo | 0o644, (0, 0))
        case .socket: try c.fs.mknod(c.path(name), FileType.socket | 0o644, (0, 0))
        }
    }
    var type: UInt32 {
        switch self {
        case .none: 0
        case .file: FileType.regular
        case .emptyDirectory, .fullDirectory: FileType.directory
        case .linkToFile, .linkToDirectory, .danglingLink: FileType.symlink
        case .fifo: FileType.fifo
        case .socket: FileType.socket
        }
    }
}

enum ContractSuite {
    static let all: [ContractCase] =
        pathCases + creationCases + removalCases + renameCases + renameMatrix + linkCases + permissionCases + privilegeCases + timeCases
        + dataCases + holeCases + attributeCases + extendedAttributeCases + directoryCases + openCases + lockCases
    /// Those that names and directories are most of.
    static let ofNames: [ContractCase] = creationCases + removalCases + renameCases + linkCases + timeCases + directoryCases
}
