// Where a listing of a sharded directory stands, as the cookie of a READDIR.
//
// Role: an entry keeps its own cookie when it moves to a shard, and new ones of a shard begin above all that moved. So
// "old" entries, those that were there before the directory was sharded, have distinct cookies over all shards, and a
// listing that began before goes on among them without meeting one twice.
// Layout (63 bits, as telldir(3) has them):
//   plain   a cookie of the undivided directory: 0 to 2 begin a listing, a larger one began before the sharding
//   old     bit 62; the cookie up to which the undivided directory was listed (25 bits), shard (12), cookie in it (25):
//           the old entries of every shard that lie above the first
//   shard   bit 61 if the old entries were listed, shard + 1 (13 bits), cookie in it (48): all entries of shard after shard
// Invariant: every value a client may send is one of these, and leads to some place in the listing or to its end.

struct ShardCookie {
    /// Only directories with fewer insertions behind them are sharded, so that two old cookies fit into one.
    static var oldCookies: UInt64 { 1 << 25 }

    /// The undivided directory was listed up to here; nil: old entries are treated as any.
    var listed: UInt64? = nil
    var skipsOld = false
    var shard = 0
    /// In the shard: the listing goes on above it.
    var cookie: UInt64 = 0

    init(_ value: UInt64) {
        if value & 1 << 62 != 0 {
            listed = value >> 37 & (1 << 25 - 1)
            shard = Int(value >> 25 & 0xfff)
            cookie = value & (1 << 25 - 1)
        } else if value >> 48 & 0x1fff != 0 {
            skipsOld = value & 1 << 61 != 0
            shard = Int(value >> 48 & 0x1fff) - 1
            cookie = value & (1 << 48 - 1)
        } else if value > 2 {
            listed = min(value, ShardCookie.oldCookies - 1)
            cookie = listed ?? 0
        } else {
            cookie = 2
        }
    }

    var value: UInt64 {
        if let listed { return 1 << 62 | listed << 37 | UInt64(shard) << 25 | min(cookie, ShardCookie.oldCookies - 1) }
        return (skipsOld ? 1 << 61 : 0) | UInt64(shard + 1) << 48 | cookie & (1 << 48 - 1)
    }

    /// The first shard's, or the next one's, beginning. nil: the listing is over. `first` is the first cookie of entries that are not
    /// old, `shards` how many there are.
    func next(shards: Int, first: UInt64) -> ShardCookie? {
        var next = self
        next.shard += 1
        if next.shard < shards {
            next.cookie = listed ?? (skipsOld ? first - 1 : 2)
            return next
        }
        guard listed != nil else { return nil }
        next.listed = nil
        next.skipsOld = true
        next.shard = 0
        next.cookie = first - 1
        return next
    }
}
