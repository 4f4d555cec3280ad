// The servers that share one core, and the static switch by which the run loop reaches them.
//
// Role: the one place where services and host meet. The microkernel is generic over this type, so a release build
// binds every call from the run loop to a server without an existential and without reference counting.

import CFosWire
import FileService
import MemoryService
import Messaging
import NameService
import PlacementService
import PrivilegeService

/// A server of some kind, by pointer to memory that its group owns.
private enum Resident {
    case name(UnsafeMutablePointer<NameServer>)
    case privilege(UnsafeMutablePointer<PrivilegeServer>)
    case file(UnsafeMutablePointer<FileServer<MemoryStore>>)
    case memory(UnsafeMutablePointer<MemoryServer>)
    case placement(UnsafeMutablePointer<FleetManager>)
}

struct CoreServers: ServerGroup, ~Copyable {
    private let residents: UnsafeMutableBufferPointer<Resident>
    private var filled = 0

    /// - Parameter capacity: servers that will be added, in the order of their mailbox indices.
    init(capacity: Int) {
        residents = .allocate(capacity: capacity)
    }

    deinit {
        for index in 0..<filled {
            switch residents[index] {
            case .name(let server):
                server.deinitialize(count: 1)
                server.deallocate()
            case .privilege(let server):
                server.deinitialize(count: 1)
                server.deallocate()
            case .file(let server):
                server.deinitialize(count: 1)
                server.deallocate()
            case .memory(let server):
                server.deinitialize(count: 1)
                server.deallocate()
            case .placement(let server):
                server.deinitialize(count: 1)
                server.deallocate()
            }
        }
        residents.deallocate()
    }

    mutating func add(_ server: consuming NameServer) {
        let place = UnsafeMutablePointer<NameServer>.allocate(capacity: 1)
        place.initialize(to: server)
        append(.name(place))
    }

    mutating func add(_ server: consuming PrivilegeServer) {
        let place = UnsafeMutablePointer<PrivilegeServer>.allocate(capacity: 1)
        place.initialize(to: server)
        append(.privilege(place))
    }

    mutating func add(_ server: consuming FileServer<MemoryStore>) {
        let place = UnsafeMutablePointer<FileServer<MemoryStore>>.allocate(capacity: 1)
        place.initialize(to: server)
        append(.file(place))
    }

    mutating func add(_ server: consuming MemoryServer) {
        let place = UnsafeMutablePointer<MemoryServer>.allocate(capacity: 1)
        place.initialize(to: server)
        append(.memory(place))
    }

    mutating func add(_ server: consuming FleetManager) {
        let place = UnsafeMutablePointer<FleetManager>.allocate(capacity: 1)
        place.initialize(to: server)
        append(.placement(place))
    }

    private mutating func append(_ resident: Resident) {
        residents.initializeElement(at: filled, to: resident)
        filled += 1
    }

    var count: Int { filled }

    mutating func receive<K: Kernel>(server index: Int, _ request: Request, _ kernel: K) {
        switch residents[index] {
        case .name(let server): server.pointee.receive(request, kernel)
        case .privilege(let server): server.pointee.receive(request, kernel)
        case .file(let server): server.pointee.receive(request, kernel)
        case .memory(let server): server.pointee.receive(request, kernel)
        case .placement(let server): server.pointee.receive(request, kernel)
        }
    }

    mutating func resume<K: Kernel>(server index: Int, _ response: Response, _ kernel: K) {
        switch residents[index] {
        case .name(let server): server.pointee.resume(response, kernel)
        case .privilege(let server): server.pointee.resume(response, kernel)
        case .file(let server): server.pointee.resume(response, kernel)
        case .memory(let server): server.pointee.resume(response, kernel)
        case .placement(let server): server.pointee.resume(response, kernel)
        }
    }

    func describe(server index: Int, _ statistics: inout fos_statistics) {
        switch residents[index] {
        case .name(let server): server.pointee.describe(&statistics)
        case .privilege(let server): server.pointee.describe(&statistics)
        case .file(let server): server.pointee.describe(&statistics)
        case .memory(let server): server.pointee.describe(&statistics)
        case .placement(let server): server.pointee.describe(&statistics)
        }
    }
}

/// For the release build (WireTypes.swift).
private func specialiseServers() { findConformances(of: WireTypes.self) }
