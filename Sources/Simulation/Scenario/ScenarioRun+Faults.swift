// The faults of a scenario: when each one strikes, whom, and what is lost with it.
//
// Protocol: `planFaults` runs before the workload. It sets the chances of messages to be late, refused or stale, and lays down the
// moments of all other faults; who is struck is drawn then, or, of names and slots, when the moment comes.
// Invariants: chance is the run's own (`random`), drawn in an order that depends on nothing but the scenario and the run; the root's
// file server never dies, nor the last name server; `lost` and `lostSlots` name whatever the checker must not expect to find again.

import CFosWire
import FileService
import Fleet
import Messaging
import Simulator

extension ScenarioRun {
    func planFaults() {
        for fault in scenario.faults {
            switch fault.kind {
            case .delay:
                host.faults.delayedPer65536 = fault.per65536
                host.faults.delayAtMost = VirtualTime(fault.nanoseconds) * 1000
            case .refuse: host.faults.refusedPer65536 = fault.per65536
            case .staleNames: host.faults.stalePer65536 = fault.per65536
            case .stall, .crash, .clientDies, .coreLost, .slotsMove: for _ in 0..<fault.times { plan(fault) }
            }
        }
    }

    private func plan(_ fault: FaultPlan) {
        let moment = host.time + VirtualTime(random.below(fault.withinNanoseconds)) * 1000
        let length = VirtualTime(fault.nanoseconds) * 1000
        switch fault.kind {
        case .stall:
            let address = fleets.files[random.below(fleets.files.count)]
            host.at(moment) { $0.stall(address, until: $0.time + length) }
        case .crash where fault.fleet == .names:
            let member = random.below(fleets.names.count)
            host.at(moment) { [unowned self] host in crashName(member, fault, triesLeft: 50, host) }
        case .crash:
            guard let member = victim() else { return }
            host.at(moment) { [unowned self] host in crash(member, fault.restart, after: length, host) }
        case .coreLost:
            guard let core = fault.fleet == .names ? nameVictim() : victim().map({ fleets.files[$0].core }) else { return }
            host.at(moment) { [unowned self] host in
                world.deaths.append(host.time)
                for other in fleets.files.indices where fleets.files[other].core == core { lose(other) }
                host.loseCore(core)
                forgetNames(ofCore: core)
            }
        case .clientDies:
            let client = clients[random.below(clients.count)]
            host.at(moment) { [unowned self] host in
                guard client.isAlive else { return }
                host.kill(client)
                for (program, thread) in programs where thread.client === client { program.abandon(thread) }
                for (program, other) in memoryPrograms where other === client { program.abandon() }
                for (program, thread) in namePrograms where thread.client === client { program.abandon(thread) }
            }
        case .slotsMove: host.at(moment) { [unowned self] host in moveSlot(host) }
        default: break
        }
    }

    /// Orders the owner of something that is in use to give its slot to another server, as the fleet manager does.
    private func moveSlot(_ host: SimHost) {
        let used = world.directories + world.files
        guard !used.isEmpty else { return }
        let slot = SlotTable.slot(ofInode: used[random.below(used.count)])
        let takers = fleets.files.indices.filter {
            host.server(at: fleets.files[$0]) != nil && fleets.files[$0] != host.board.owner(ofSlot: slot)
        }
        // With the root all is lost: where servers die it stays with one that does not.
        guard !takers.isEmpty, !scenario.hasDeaths || slot != SlotTable.slot(ofInode: 1) else { return }
        let give = fos_fleet_give(member: UInt32(takers[random.below(takers.count)]), slots: 1, slot: UInt32(slot), reserved: 0)
        host.kernelPost(FOS_OP_FLEET_GIVE, withUnsafeBytes(of: give) { Array($0) }, to: host.board.owner(ofSlot: slot))
    }

    /// What a file server has is lost with it: its slots, those on their way from it and to it, and, for who has not heard yet
    /// that it gave one away, that one.
    private func lose(_ member: Int) {
        lost.insert(member)
        let servers = fleets.files.map { host.server(at: $0) as? any InspectableFileServer }
        for slot in 0..<SlotTable.slots {
            let isBelieved = servers.contains { $0?.owner(ofSlot: slot) == member }
            if isBelieved || fleets.files[member] == host.board.owner(ofSlot: slot) { lostSlots.insert(slot) }
        }
        for (other, server) in servers.enumerated() {
            guard let giving = server?.giving, other == member || giving.taker == member else { continue }
            lostSlots.insert(giving.slot)
        }
    }

    /// A file server that may die: not the root's, with which everything is lost.
    private func victim() -> Int? {
        let root = host.board.owner(ofInode: 1)
        let candidates = fleets.files.indices.filter { fleets.files[$0] != root && fleets.files[$0].core != root.core }
        return candidates.isEmpty ? nil : candidates[random.below(candidates.count)]
    }

    /// The core of a name server that has it for itself, and is not the only one left.
    private func nameVictim() -> Int? {
        let cores = fleets.names.map(\.core).filter { core in !fleets.files.contains { $0.core == core } }
        return fleets.names.count < 2 || cores.isEmpty ? nil : cores[random.below(cores.count)]
    }

    /// A name server dies, and comes back with nothing. While copies are being made for want of another one it would take names
    /// along: then it dies later; and, unless the fault says so, while another one is away or on its way back.
    private func crashName(_ member: Int, _ fault: FaultPlan, triesLeft: Int, _ host: SimHost) {
        let address = fleets.names[member]
        let length = VirtualTime(fault.nanoseconds) * 1000
        guard fault.whileRejoining ? mayLoseName(member) : fleets.names.allSatisfy({ nameServer($0)?.server.isServing == true }) else {
            guard triesLeft > 0 else { return }
            let wait: VirtualTime = fault.whileRejoining ? 300_000 : 5_000_000
            return host.at(host.time + wait) { [unowned self] host in crashName(member, fault, triesLeft: triesLeft - 1, host) }
        }
        world.deaths.append(host.time)
        host.crash(address)
        host.at(host.time + length) { [unowned self] host in
            host.restart(address, NameMember(fleets.nameServer(member, isJoining: true)), restored: false)
            registerAgain(address, as: "/sys/name")
        }
    }

    private func nameServer(_ address: MailboxAddress) -> NameMember? { host.server(at: address) as? NameMember }
    /// Whether every name is at two servers, so that a server may die, and still two are left that serve.
    private func mayLoseName(_ victim: Int) -> Bool {
        let servers = fleets.names.map(nameServer)
        guard servers[victim] != nil else { return false }
        let dead = servers.indices.filter { servers[$0] == nil }
        let left = servers.indices.count { $0 != victim && servers[$0]?.server.isRejoining == false }
        return left >= 2 && servers.allSatisfy { $0?.server.hasMadeCopies(without: dead) ?? true }
    }

    /// A microkernel registers a mailbox under its new epoch.
    private func registerAgain(_ address: MailboxAddress, as fleet: String) {
        guard let server = fleets.names.first(where: { host.server(at: $0) != nil }) else { return }
        let name = Array(fleet.utf8)
        var entry = fos_name_request()
        entry.name_length = UInt32(name.count)
        entry.flags = FOS_NAME_MANY.rawValue
        entry.member = fos_name_member(
            mailbox: address.rawValue, epoch: host.epoch(of: address), core: UInt32(address.core), load: 0, distance: 0, alive: 1)
        host.kernelPost(FOS_OP_NAME_REGISTER, withUnsafeBytes(of: entry) { Array($0) } + name, to: server)
    }

    /// Microkernels tell the name fleet of mailboxes that are gone for good.
    private func forgetNames(ofCore core: Int) {
        for address in fleets.files + fleets.names where address.core == core {
            var news = fos_name_request()
            news.member.mailbox = address.rawValue
            for name in fleets.names { host.kernelPost(FOS_OP_NAME_MEMBER_DEAD, withUnsafeBytes(of: news) { Array($0) }, to: name) }
        }
    }

    private func crash(_ member: Int, _ restart: FaultPlan.Restart, after length: VirtualTime, _ host: SimHost) {
        let address = fleets.files[member]
        guard host.server(at: address) != nil else { return }
        world.deaths.append(host.time)
        if restart != .store { lose(member) }
        host.crash(address, forGood: restart == .never)
        if restart == .store {
            return host.at(host.time + length) { [unowned self] host in
                var server = fleets.fileServer(
                    member, store: RecordingStore(stores[member], births: births, loses: storesLose), hasRoot: false)
                precondition(stores[member].restore(&server), "what a server had fits into it")
                host.restart(address, StoredFileMember(server), restored: true)
                registerAgain(address, as: "/sys/file")
            }
        }
        guard restart == .empty else { return }
        incarnation += 1
        let incarnation = incarnation
        host.at(host.time + length) { [unowned self] host in
            let server = fleets.fileServer(member, store: NotingStore(births: births), incarnation: incarnation, isJoining: true)
            host.restart(address, StoredFileMember(server), restored: false)
            registerAgain(address, as: "/sys/file")
        }
    }
}
