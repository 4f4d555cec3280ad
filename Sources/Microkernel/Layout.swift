// Layout: how an instance's memory is cut up at start, from the configuration. Nothing is allocated after it.

import CFosWire
import CPlatform
import Glibc
import Messaging

extension MicrokernelConfiguration {
    struct NamedMailbox {
        var name: String
        var many: Bool
        var mailbox: MailboxAddress
        var epoch: UInt32
    }

    func placements(core: Int) -> [ServerPlacement] { placements.filter { $0.core == core }.sorted { $0.index < $1.index } }

    /// The names that a core registers at start, in order.
    func registrations(core: Int) -> [NamedMailbox] {
        placements(core: core).flatMap { placement in
            placement.names.map {
                NamedMailbox(name: $0.name, many: $0.many, mailbox: placement.mailbox, epoch: placement.epoch)
            }
        }
    }

    func fleet(_ service: fos_service_kind) -> [ServerPlacement] {
        placements.filter { $0.service == service.rawValue }.sorted { $0.member < $1.member }
    }
}

enum Layout {
    /// The microkernel's own mailbox on each core: few letters, and a response for each of its questions.
    static var ownCapacity: Int { 64 }
    static var ownResponses: Int { 256 }
    private static var slack: Int { 64 * 1024 }

    static func sharedBytes(_ configuration: MicrokernelConfiguration) -> Int {
        let cores = configuration.cpus.count
        return cores * MicrokernelConfiguration.mailboxesPerCore * MemoryLayout<MailboxPort>.stride
            + configuration.clientsMax * MemoryLayout<ClientEntry>.stride
            + cores * (MemoryLayout<ControlRing>.stride + 4 * configuration.clientsMax * 8 + 128)
            + cores * (MemoryLayout<HandOutRing>.stride + HandOutRing.bytes) + configuration.placements.count * 64 + slack
    }

    static func coreBytes(_ configuration: MicrokernelConfiguration, core: Int) -> Int {
        let letter = MemoryLayout<fos_letter>.stride
        let mailboxes = configuration.placements(core: core).count + 1
        let depth = max(configuration.mailboxCapacity, ownCapacity)
        let remote = max(configuration.remoteMailboxCapacity, ownCapacity)
        let responses = max(configuration.responseCapacity, ownResponses)
        let mailbox = depth * letter + remote * (letter + 64) + responses * (letter + 16) + Int(FOS_TRACE_RECORDS) * 32 + 4096
        let names = configuration.registrations(core: core)
        return MemoryLayout<Core>.stride + mailboxes * (mailbox + MemoryLayout<Mailbox>.stride)
            + configuration.clientsMax * (MemoryLayout<ClientView>.stride + 8)
            + (PendingLetters.capacity + 4) * (letter + 64) + PrivilegeCache.capacity * 16
            + names.count * (MemoryLayout<Registration>.stride + 256) + mailboxes * 128 + slack
    }

    static func fabric(
        _ configuration: MicrokernelConfiguration, board: UnsafeMutableRawPointer, event: Int32, arena: inout Arena
    ) -> Fabric {
        let cores = configuration.cpus.count
        let board = board.bindMemory(to: fos_board.self, capacity: 1)
        board.pointee.magic = fos_wire_board_magic()
        board.pointee.version = UInt32(FOS_WIRE_VERSION)
        board.pointee.cores = UInt32(cores)
        for core in configuration.cpus.indices {
            fos_board_core_at(board, UInt32(core)).pointee.cpu = configuration.cpus[core]
            fos_board_core_at(board, UInt32(core)).pointee.epoch = 1
        }
        let controls = arena.take(ControlRing.self, cores)
        for core in 0..<cores { controls[core] = ControlRing(clientsMax: configuration.clientsMax, arena: &arena) }
        let handOuts = arena.take(HandOutRing.self, cores)
        for core in 0..<cores { handOuts[core] = HandOutRing(arena: &arena) }
        let clients = arena.take(ClientEntry.self, configuration.clientsMax)
        for client in 0..<configuration.clientsMax { clients[client] = .empty }
        func fleet(_ service: fos_service_kind, _ arena: inout Arena) -> (UnsafeMutablePointer<MailboxAddress>, Int) {
            let members = configuration.fleet(service)
            let table = arena.take(MailboxAddress.self, max(1, members.count))
            for (position, member) in members.enumerated() { table[position] = member.mailbox }
            return (table, members.count)
        }
        let names = fleet(FOS_SERVICE_NAME, &arena)
        let privileges = fleet(FOS_SERVICE_PRIVILEGE, &arena)
        return Fabric(
            board: board, coreCount: cores,
            ports: arena.take(MailboxPort.self, cores * MicrokernelConfiguration.mailboxesPerCore), clients: clients,
            clientsMax: configuration.clientsMax, controls: controls, kernelCacheClient: arena.take(UInt32.self, 16),
            stopping: arena.take(UInt32.self, 16), ready: arena.take(UInt32.self, 16), refusal: arena.take(UInt64.self, 8),
            acceptorEvent: event, handOuts: handOuts, ownerUID: configuration.ownerUID, nameServers: names.0, nameServerCount: names.1,
            privilegeServers: privileges.0, privilegeServerCount: privileges.1, hasHugeFrames: fos_platform_frames_huge() != 0)
    }

    static func core(
        _ configuration: MicrokernelConfiguration, core index: Int, fabric: Fabric, arena: inout Arena
    ) -> UnsafeMutablePointer<Core> {
        let state = arena.take(Core.self, 1)
        let placements = configuration.placements(core: index)
        let mailboxes = arena.take(Mailbox.self, placements.count + 1)
        mailboxes[0] = Mailbox(
            address: MailboxAddress(core: index, index: 0), epoch: 1, clientReachable: false, service: FOS_SERVICE_NONE.rawValue,
            member: UInt32(index), capacity: ownCapacity, remoteCapacity: ownCapacity, responseCapacity: ownResponses,
            arena: &arena)
        for (position, placement) in placements.enumerated() {
            mailboxes[position + 1] = Mailbox(
                address: placement.mailbox, epoch: placement.epoch, clientReachable: placement.clientReachable,
                service: placement.service, member: UInt32(placement.member), capacity: configuration.mailboxCapacity,
                remoteCapacity: configuration.remoteMailboxCapacity, responseCapacity: configuration.responseCapacity,
                arena: &arena)
        }
        for mailbox in 0...placements.count {
            fabric.ports[index * MicrokernelConfiguration.mailboxesPerCore + mailbox] = mailboxes[mailbox].port
        }
        let names = configuration.registrations(core: index)
        let registrations = arena.take(Registration.self, max(1, names.count))
        for (position, name) in names.enumerated() {
            let bytes = arena.take(UInt8.self, name.name.utf8.count)
            for (offset, byte) in name.name.utf8.enumerated() { bytes[offset] = byte }
            registrations[position] = Registration(
                name: bytes, length: name.name.utf8.count, many: name.many, mailbox: name.mailbox, epoch: name.epoch)
        }
        var seed: UInt64 = 0
        _ = fos_platform_random(&seed, UInt32(MemoryLayout<UInt64>.size))
        state.initialize(
            to: Core(
                index: index, fabric: fabric, mailboxes: mailboxes, mailboxCount: placements.count + 1, localLetters: 0,
                localQueued: 0,
                running: arena.take(UInt32.self, 16), clock: fos_platform_monotonic_ns(), clockIsFresh: false,
                fastClock: FastClock(), turn: 0,
                random: SeededRandom(seed: seed), scratch: arena.take(fos_letter.self, 1), staging: arena.take(fos_letter.self, 1),
                news: arena.take(fos_letter.self, 1), views: arena.take(ClientView.self, configuration.clientsMax),
                order: arena.take(UInt32.self, configuration.clientsMax), known: 0, hot: 0, coldCursor: 0, hotCursor: 0,
                controlHead: 0, watched: arena.take(WatchedChannel.self, Core.watchedMax), watchedCount: 0,
                watchedNext: 0, watchedAreSilent: true, ringing: arena.take(UInt32.self, configuration.clientsMax), ringingCount: 0,
                queueLimit: UInt32(max(1, configuration.mailboxCapacity / 4)),
                privileges: PrivilegeCache(arena: &arena), pending: PendingLetters(arena: &arena),
                names: NameCache(arena: &arena), registrations: registrations, registrationCount: names.count, registered: 0,
                registrationInFlight: false, announced: false, parking: ParkingPolicy(),
                lastTick: fos_platform_monotonic_ns(), workedSinceTick: false, idleWanted: 0))
        return state
    }

    /// What the crash handler says about a core.
    static func crash(
        _ configuration: MicrokernelConfiguration, core: UnsafeMutablePointer<Core>, arena: inout Arena
    ) -> UnsafeMutablePointer<fos_crash_core> {
        let placements = configuration.placements(core: core.pointee.index)
        let servers = arena.take(fos_crash_server.self, placements.count + 1)
        for mailbox in 0...placements.count {
            let name: String
            if mailbox == 0 {
                name = "microkernel"
            } else {
                let placement = placements[mailbox - 1]
                name = "\(serviceName(placement.service))/\(placement.member)"
            }
            let server = servers + mailbox
            server.pointee.records = core.pointee.mailboxes[mailbox].trace
            server.pointee.count = core.pointee.mailboxes[mailbox].traced
            // `name` is the struct's first field.
            let text = UnsafeMutableRawPointer(server).assumingMemoryBound(to: UInt8.self)
            for (offset, byte) in name.utf8.prefix(31).enumerated() { text[offset] = byte }
        }
        let report = arena.take(fos_crash_core.self, 1)
        report.pointee.core = UInt32(core.pointee.index)
        report.pointee.servers = UInt32(placements.count + 1)
        report.pointee.running = UnsafePointer(core.pointee.running)
        report.pointee.server = servers
        return report
    }

    static func serviceName(_ service: UInt32) -> String {
        switch service {
        case FOS_SERVICE_NAME.rawValue: "name"
        case FOS_SERVICE_PRIVILEGE.rawValue: "privilege"
        case FOS_SERVICE_FILE.rawValue: "file"
        case FOS_SERVICE_MEMORY.rawValue: "memory"
        case FOS_SERVICE_PLACEMENT.rawValue: "placement"
        default: "service-\(service)"
        }
    }
}
