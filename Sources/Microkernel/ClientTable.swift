// The client table: what all cores and the acceptor know of each connected client process.
//
// Role: written by the acceptor thread, read by every core. Segment addresses, identity (with all supplementary groups,
// as many as Linux allows) and rights are constant while
// an entry lives; `live` holds the client's generation while it does, else 0, and is the word that publishes them.
// Protocol: connect: the acceptor fills an entry, stores `live`, tells each core. Death: it clears `live`, tells each
// core; a core forgets the client between two letters, tells its servers, and counts itself in `farewells`. When all
// cores have, none can hold an address into the segment any more (it takes addresses anew for every letter), and the
// acceptor unmaps it, frees the groups, and uses the index again: reclamation by quiescence, without a count of references.
// Invariants: `state[channel]` is the core's own record of a channel: low half the sequence taken last, bit 32 set
// while it is in flight. The client's words are only compared with it.

import CFosWire
import CPlatform

@usableFromInline struct ClientEntry: BitwiseCopyable {
    /// Generation while the client lives, 0 otherwise. Atomic.
    var live: UInt32
    /// Cores that have forgotten the client. Atomic.
    var farewells: UInt32
    var generation: UInt32
    var rights: UInt32
    var uid: UInt32
    var gid: UInt32
    var pid: UInt32
    var channels: UInt32
    var segment: UnsafeMutableRawPointer?
    var segmentBytes: UInt64
    var bells: UnsafeMutablePointer<fos_bell>?
    var noticeControl: UnsafeMutablePointer<fos_notice_control>?
    var noticeRings: UnsafeMutablePointer<fos_notice_ring>?
    var channel: UnsafeMutablePointer<fos_channel>?
    var bulk: UnsafeMutableRawPointer?
    var state: UnsafeMutablePointer<UInt64>?
    /// Supplementary groups, ascending.
    var groups: UnsafeMutablePointer<UInt32>?
    var groupCount: UInt32
}

/// Offsets inside a segment of `cores` cores and `channels` channels.
///
/// A short program uses the header, a bell and the first channel. These lie on the first two pages, which its first look at the header
/// maps both (fault-around); each page more would cost it and this process a page fault. What few clients use comes behind.
struct SegmentLayout {
    var bells: Int
    var notices: Int
    var channel: Int
    var bulk: Int
    var bytes: Int

    init(cores: Int, channels: Int) {
        let page = Int(FOS_PAGE_BYTES)
        let line = Int(FOS_CACHE_LINE)
        func up(_ n: Int, to unit: Int) -> Int { (n + unit - 1) / unit * unit }
        let besideHeader = up(MemoryLayout<fos_segment_header>.size, to: line)
        let bellBytes = cores * MemoryLayout<fos_bell>.stride
        let fits = besideHeader + bellBytes <= Int(FOS_SEGMENT_CLIENT_AT)
        bells = fits ? besideHeader : page
        channel = fits ? page : up(bells + bellBytes, to: page)
        notices = up(channel + channels * MemoryLayout<fos_channel>.stride, to: page)
        bulk = up(notices + MemoryLayout<fos_notice_control>.stride + cores * MemoryLayout<fos_notice_ring>.stride, to: page)
        bytes = up(bulk + channels * Int(FOS_CHANNEL_AREA_BYTES), to: page)
    }
}

extension ClientEntry {
    static var empty: ClientEntry {
        ClientEntry(
            live: 0, farewells: 0, generation: 0, rights: 0, uid: 0, gid: 0, pid: 0, channels: 0, segment: nil,
            segmentBytes: 0, bells: nil, noticeControl: nil, noticeRings: nil, channel: nil, bulk: nil, state: nil,
            groups: nil, groupCount: 0)
    }

    /// Points at the parts of a mapped segment and writes its header, which is never read back.
    mutating func lay(_ base: UnsafeMutableRawPointer, layout: SegmentLayout, index: UInt32, cores: Int, channels: Int) {
        segment = base
        segmentBytes = UInt64(layout.bytes)
        self.channels = UInt32(channels)
        bells = (base + layout.bells).bindMemory(to: fos_bell.self, capacity: cores)
        noticeControl = (base + layout.notices).bindMemory(to: fos_notice_control.self, capacity: 1)
        noticeRings = (base + layout.notices + MemoryLayout<fos_notice_control>.stride)
            .bindMemory(to: fos_notice_ring.self, capacity: cores)
        channel = (base + layout.channel).bindMemory(to: fos_channel.self, capacity: channels)
        bulk = base + layout.bulk
        let header = base.bindMemory(to: fos_segment_header.self, capacity: 1)
        header.pointee = fos_segment_header(
            magic: fos_wire_segment_magic(), version: UInt32(FOS_WIRE_VERSION), client: index, cores: UInt32(cores),
            channels: UInt32(channels), bells_offset: UInt64(layout.bells), notices_offset: UInt64(layout.notices),
            channels_offset: UInt64(layout.channel), bulk_offset: UInt64(layout.bulk), bytes: UInt64(layout.bytes))
    }
}
