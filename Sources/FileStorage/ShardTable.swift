// The shards of other servers' directories that this server has: from directory and shard number to the record.
//
// Role: a request names a directory and a name; when the directory is not here, this finds the shard that may be.
// Layout: open addressing with linear probing and shifting back on removal (Knuth, volume 3, section 6.4), at most half
// full. Beside each shard there is an entry for its directory (shard 0 is never here), which says how many shards the
// directory has and counts those that are here.
// Invariants: memory is taken as shards come, outside the arena: a shard stands for thousands of entries.

public struct ShardTable: ~Copyable {
    private struct Place: BitwiseCopyable {
        /// directory | shard << 48; 0: free.
        var key: UInt64 = 0
        /// The record's address, or for a directory bits | count << 8.
        var value: UInt = 0
    }
    private var places: UnsafeMutablePointer<Place>
    private var shift = 4
    private var used = 0
    /// Shards that are here.
    public private(set) var count = 0

    private var mask: Int { 1 << shift - 1 }
    private static func key(_ directory: UInt64, _ shard: Int) -> UInt64 { directory | UInt64(truncatingIfNeeded: shard) << 48 }
    private func home(_ key: UInt64) -> Int { Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> UInt64(64 - shift)) }

    public init() {
        places = .allocate(capacity: 16)
        places.initialize(repeating: Place(), count: 16)
    }
    deinit { places.deallocate() }

    private func index(of key: UInt64) -> Int? {
        var index = home(key)
        while places[index].key != 0 {
            if places[index].key == key { return index }
            index = (index + 1) & mask
        }
        return nil
    }

    /// Binary logarithm of the shards of a directory that has some here; nil if it has none.
    public func bits(of directory: UInt64) -> Int? {
        guard directory != 0, directory < 1 << 48, let index = index(of: directory) else { return nil }
        return Int(places[index].value & 0xff)
    }

    /// The record of a shard, from 1. Any numbers are safe.
    public func find(_ directory: UInt64, _ shard: Int) -> InodePointer? {
        guard directory != 0, directory < 1 << 48, shard > 0, shard < 1 << 15, let index = index(of: ShardTable.key(directory, shard)) else { return nil }
        return InodePointer(bitPattern: places[index].value)
    }

    /// Enters a record that says whose shard it is. It is not here yet.
    public mutating func insert(_ record: InodePointer) {
        let directory = record.pointee.parent
        let key = ShardTable.key(directory, record.pointee.shardIndex)
        precondition(record.pointee.isShard && record.pointee.shardIndex > 0 && index(of: key) == nil, "a shard is entered twice")
        if 2 * (used + 2) > 1 << shift { grow() }
        put(Place(key: key, value: UInt(bitPattern: record)))
        if let known = index(of: directory) {
            places[known].value += 1 << 8
        } else {
            put(Place(key: directory, value: UInt(record.pointee.shardBits) | 1 << 8))
            used += 1
        }
        used += 1
        count += 1
    }

    /// Takes a record out.
    public mutating func remove(_ record: InodePointer) {
        let directory = record.pointee.parent
        guard let place = index(of: ShardTable.key(directory, record.pointee.shardIndex)) else { preconditionFailure("a shard that is not here goes") }
        clear(place)
        count -= 1
        used -= 1
        guard let known = index(of: directory) else { preconditionFailure("a shard is here and its directory is unknown") }
        places[known].value -= 1 << 8
        if places[known].value >> 8 == 0 {
            clear(known)
            used -= 1
        }
    }

    private mutating func put(_ place: Place) {
        var index = home(place.key)
        while places[index].key != 0 { index = (index + 1) & mask }
        places[index] = place
    }

    private mutating func clear(_ place: Int) {
        var hole = place
        var index = hole
        while true {
            index = (index + 1) & mask
            if places[index].key == 0 { break }
            if (index - home(places[index].key)) & mask >= (index - hole) & mask {
                places[hole] = places[index]
                hole = index
            }
        }
        places[hole] = Place()
    }

    private mutating func grow() {
        let old = UnsafeMutableBufferPointer(start: places, count: 1 << shift)
        shift += 1
        places = .allocate(capacity: 1 << shift)
        places.initialize(repeating: Place(), count: 1 << shift)
        for place in old where place.key != 0 { put(place) }
        old.deallocate()
    }
}
