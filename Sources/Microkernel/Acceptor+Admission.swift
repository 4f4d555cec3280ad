// Letting clients in: entry, segment and welcome.
//
// Role: what follows a valid hello, on the acceptor's thread.
// Protocol: the entry is whole before its live word says so; the cores are told before the client, which may post as soon as
// it has its segment. The segments of the next clients are made while nobody waits (Segment.swift).
// Invariants: a client that cannot be welcomed or watched leaves nothing behind: it departs like any other.

import CFosWire
import CPlatform
import Glibc
import Messaging

extension Acceptor {
    /// Segments made ahead: a parallel build has this many programs in some 0.2 s. Each has three pages, and as many of tables.
    static let sparesMax = 32
    /// Of 20 us each.
    private static let sparesAtOnce = 4

    private func clients(of uid: UInt32) -> Int { locked { listed.values.count { $0.uid == uid } } }

    /// Whether a user may have one client more.
    func hasPlace(for uid: UInt32) -> Bool {
        if clients(of: uid) < configuration.clientsOfUserMax { return true }
        _ = seeOffTheDead()
        return clients(of: uid) < configuration.clientsOfUserMax
    }

    /// Lets a client in: gives it an entry and a segment, tells the cores, and welcomes it.
    func admit(_ socket: Int32, _ peer: fos_platform_peer, rights: UInt32, channels wanted: Int) {
        let channels = min(max(wanted, 1), configuration.channelsMax)
        let layout = SegmentLayout(cores: layoutCores, channels: channels)
        if free.isEmpty {
            _ = seeOffTheDead()
            reclaim()
        }
        guard let index = free.last else {
            fos_platform_close(peer.pidfd)
            return refuse(socket, -EAGAIN)
        }
        guard let groups = Self.groups(of: socket) else {
            fos_platform_close(peer.pidfd)
            return refuse(socket, -EACCES)
        }
        let made = segment(channels: channels, bytes: layout.bytes)
        guard let segment = made.segment else {
            fos_platform_close(peer.pidfd)
            groups.deallocate()
            return refuse(socket, made.error)
        }
        free.removeLast()
        enter(index, peer, rights: rights, segment, layout, channels: channels, groups)
        // A core reads this news before it looks at bells, so none has to be woken for it. (The client knows whether to wake one ahead.)
        for core in 0..<fabric.coreCount { fabric.controls[core].post(.attached, client: index) }
        connections[Int(index)] = Connection(socket: socket, pidfd: peer.pidfd)
        hasWelcomed = true
        let isWelcome = welcome(index, rights: rights, segment, layout)
        fos_platform_close(segment.descriptor)
        if !isWelcome || !watch(index, peer) { depart(Int(index)) }
    }

    /// Fills a client's entry, which makes it one that lives.
    private func enter(
        _ index: UInt32, _ peer: fos_platform_peer, rights: UInt32, _ segment: Segment, _ layout: SegmentLayout, channels: Int,
        _ groups: UnsafeMutableBufferPointer<UInt32>
    ) {
        let entry = fabric.clients + Int(index)
        let generation = entry.pointee.generation == UInt32.max ? 1 : entry.pointee.generation + 1
        var fresh = ClientEntry.empty
        fresh.generation = generation
        fresh.rights = rights
        fresh.uid = peer.uid
        fresh.gid = peer.gid
        fresh.pid = UInt32(max(peer.pid, 0))
        fresh.lay(segment.base, layout: layout, index: index, cores: layoutCores, channels: channels)
        let record = UnsafeMutablePointer<UInt64>.allocate(capacity: channels)
        record.initialize(repeating: 0, count: channels)
        fresh.state = record
        fresh.groups = groups.baseAddress
        fresh.groupCount = UInt32(groups.count)
        entry.pointee = fresh
        fos_store_release_u32(Fabric.liveWord(entry), generation)
        if rights & FOS_RIGHT_KERNEL_CACHE.rawValue != 0 { fos_store_release_u32(fabric.kernelCacheClient, index + 1) }
        let status = ClientStatus(client: index, uid: peer.uid, gid: peer.gid, pid: fresh.pid, channels: UInt32(channels), rights: rights)
        locked { listed[index] = status }
        configuration.onClient?(status, true)
    }

    /// Sends the welcome, with the segment and the board. False if it cannot be sent.
    private func welcome(_ index: UInt32, rights: UInt32, _ segment: Segment, _ layout: SegmentLayout) -> Bool {
        var welcome = fos_welcome()
        welcome.magic = fos_wire_hello_magic()
        welcome.version = UInt32(FOS_WIRE_VERSION)
        welcome.layout_hash = fos_layout_hash()
        welcome.segment_bytes = UInt64(layout.bytes)
        welcome.board_bytes = boardBytes
        welcome.client = index
        welcome.rights = rights
        welcome.name_servers = UInt32(min(4, fabric.nameServerCount))
        for server in 0..<welcome.name_servers {
            let address = fabric.nameServers[Int(server)]
            fos_welcome_name_server(&welcome, server).pointee = address.rawValue
            fos_welcome_name_server_epoch(&welcome, server).pointee = fabric.port(address)?.pointee.epoch ?? 0
        }
        welcome.files = fileServers()
        return fos_platform_send(
            connections[Int(index)].socket, &welcome, MemoryLayout<fos_welcome>.size, [segment.descriptor, boardDescriptor], 2) == 0
    }

    /// Looks out for the client's end from now on. False if Linux refuses.
    private func watch(_ index: UInt32, _ peer: fos_platform_peer) -> Bool {
        fos_platform_poll_add(departures, connections[Int(index)].socket, Key.socket.rawValue << 32 | UInt64(index)) == 0
            && (peer.pidfd < 0 || fos_platform_poll_add(departures, peer.pidfd, Key.process.rawValue << 32 | UInt64(index)) == 0)
    }

    /// The servers that own slots, found anew when the board has another table of them.
    private func fileServers() -> fos_file_servers {
        let epoch = fos_load_acquire_u32(fos_board_slot_epoch(fabric.board))
        if epoch == ownersEpoch { return owners }
        ownersEpoch = epoch
        owners = fos_file_servers()
        for slot in 0..<UInt32(FOS_SLOTS) {
            let owner = MailboxAddress(rawValue: fos_load_relaxed_u32(fos_board_slot_owner(fabric.board, slot)))
            guard let port = fabric.port(owner) else { continue }
            if fos_file_servers_add(&owners, owner.rawValue, port.pointee.epoch) == 0 { break }
        }
        return owners
    }

    private var usualChannels: Int { min(Int(FOS_HELLO_USUAL_CHANNELS), configuration.channelsMax) }

    /// The segment of a new client: one made ahead, if it has the usual size.
    private func segment(channels: Int, bytes: Int) -> (segment: Segment?, error: Int32) {
        if channels == usualChannels {
            if let ahead = spares.popLast() { return (ahead, 0) }
            sparesWanted = min(max(1, 2 * sparesWanted), Self.sparesMax)
        }
        return Segment.make(bytes: bytes)
    }

    var lacksSpares: Bool { spares.count < sparesWanted }

    /// Makes segments of the next clients, when nobody waits: a few at a time, for somebody may come meanwhile.
    func prepare() {
        let layout = SegmentLayout(cores: layoutCores, channels: usualChannels)
        for _ in 0..<Self.sparesAtOnce where lacksSpares {
            guard let segment = Segment.make(bytes: layout.bytes).segment else {
                sparesWanted = spares.count
                return
            }
            segment.touch(layout)
            spares.append(segment)
        }
    }

    func dropSpares() {
        for segment in spares { segment.dispose() }
        spares = []
    }

    /// The supplementary groups that a client had when it connected, ascending; nil if the kernel does not tell.
    private static func groups(of socket: Int32) -> UnsafeMutableBufferPointer<UInt32>? {
        var count = fos_platform_peer_groups(socket, nil, 0)
        guard count > 0 else { return count == 0 ? UnsafeMutableBufferPointer(start: nil, count: 0) : nil }
        var groups = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: Int(count))
        // They are those of the moment of connecting, so their number does not change.
        count = fos_platform_peer_groups(socket, groups.baseAddress, UInt32(groups.count))
        guard Int(count) == groups.count else {
            groups.deallocate()
            return nil
        }
        groups.sort()
        return groups
    }
}
