// LoopTransport: messages to a file fleet on the loop host, in this thread, from a seed.
//
// Role: the contract against the very servers, without a microkernel: any number of owners, messages of different
// senders reordered, mailboxes that are full by chance. The client may act as any user, and is checked as that user.

import CFosWire
import FileService
import Glibc
import LoopKernel
import Messaging

final class LoopTransport: MessageTransport {
    let name: String
    let features: Features = [
        .users, .handlesKeepRights, .temporaryFiles, .zeroRange, .extendedAttributes, .locks, .pageBlocks, .exactAccessTime,
        .refusesCollapse,
    ]
    let host: LoopHost
    let client: LoopClient
    let servers: [MailboxAddress]
    private var random: LoopRandom
    private let moves: Int
    /// Requests that were never answered.
    private var stuck: [String] = []

    /// - Parameters:
    ///   - servers: owners that slots are spread over.
    ///   - fullChance: of 256 sends between servers, how many are refused.
    ///   - pages: the size limit, in pages of 4 KiB.
    ///   - moves: of 256 calls, before how many the slot of the call's inode is given to another server.
    ///   - shards: entries from which on directories are sharded; nil: never.
    init(seed: UInt64, servers count: Int, fullChance: Int = 0, pages: Int = 1 << 18, moves: Int = 0, shards: Int? = contractShards) {
        random = LoopRandom(seed: seed &* 7919)
        self.moves = moves
        name = "\(count) file servers, seed \(seed)"
        var options = LoopOptions(seed: seed)
        options.fullChance = fullChance
        host = LoopHost(options)
        servers = (0..<count).map { MailboxAddress(core: $0, index: 1) }
        let root = RootAttributes(uid: 0, gid: 0, mode: 0o755, born: host.now)
        for member in 0..<count {
            host.add(
                FileServer(
                    member: member, members: servers, credits: pages / count, root: root, seed: seed,
                    sharding: shards.map { Sharding(threshold: $0) } ?? .never, store: MemoryStore()),
                at: servers[member])
        }
        // Every server says at its first message which slots are its own; before that nothing is known.
        client = host.addClient(rights: FOS_RIGHT_ACT_AS.rawValue)
        for server in servers { host.kernelPost(LoopCall(FOS_OP_TICK), to: server) }
        host.runUntilQuiet()
    }

    func letTimePass() { host.advance(nanoseconds: 1_000_000_000) }

    func call(
        _ operation: fos_operation, inode: UInt64, flags: UInt16, payload: [UInt8], bulk: [UInt8], room: Int, user: User
    ) throws(Errno) -> MessageReply {
        if moves > 0, servers.count > 1, random.chance(moves) { moveSlot(of: inode) }
        var call = LoopCall(operation, inode: inode, payload: payload, bulk: bulk, room: max(room, bulk.count))
        call.flags = flags
        call.actingAs = (user.uid, user.gid, 1)
        let reply: LoopReply
        do throws(LoopStuck) { reply = try client.call(call) } catch {
            // No file system says this, so the case or sequence ends with it.
            stuck.append("\(error)")
            throw Errno(ETIMEDOUT)
        }
        guard reply.status >= 0 else { throw Errno(-reply.status) }
        return MessageReply(header: reply.header, payload: reply.payload, bulk: room > 0 ? reply.bulk : [])
    }

    private func moveSlot(of inode: UInt64) {
        let owner = host.owner(ofInode: inode)
        guard let giver = servers.firstIndex(of: owner) else { return }
        let taker = (giver + 1 + random.below(servers.count - 1)) % servers.count
        host.kernelPost(
            LoopCall(
                FOS_OP_FLEET_GIVE, fos_fleet_give(member: UInt32(taker), slots: 1, slot: UInt32(inode % UInt64(FOS_SLOTS)), reserved: 0)),
            to: owner)
    }

    /// What a fleet with an empty tree and no open file must not hold any more.
    func leftovers() -> [String] {
        host.runUntilQuiet()
        // As hosts do before they rest: what met a full mailbox is sent, what is on its way arrives, and all are told.
        for _ in 0..<200 {
            host.tick()
            host.runUntilQuiet()
            if host.ticksWanted.isEmpty { break }
        }
        var problems = stuck + host.violations
        var inodes: UInt64 = 0
        for server in servers {
            let statistics = host.statistics(of: server)
            inodes += statistics.inodes
            if statistics.continuations_now > 0 {
                problems.append("\(statistics.continuations_now) continuations of server \(server.core) are left")
            }
            if statistics.locks > 0 { problems.append("\(statistics.locks) locks of server \(server.core) are left") }
        }
        if inodes != 1 { problems.append("\(inodes) inodes are left, not the root alone") }
        return problems
    }
}
