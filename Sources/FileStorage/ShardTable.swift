// The shards of other servers' directories that this server has: from directory and shard number to the record.
//
// Role: a request names a directory and a name; when the directory is not here, this finds the shard that may be.
// Layout: open addressing with linear probing and shifting back on removal (Knuth, volume 3, section 6.4), at most half
// full.
// Invariants: memory is taken as shards come, outside the arena: a shard stands for thousands of entries.

public struct ShardTable: ~Copyable {
    private struct Place: BitwiseCopyable {
        /// directory | shard << 48; 0: free.
        var key: UInt64 = 0
        /// The record's address.
        var value: UInt = 0
    }
    private var places: UnsafeMutablePointer<Place>
    private var shift = 4
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

    /// Numbers of directories that may have shards are smaller; so are all but those of a server that has begun anew.
    public static var directories: UInt64 { 1 << 48 }

    /// The record of a shard, from 1. Any numbers are safe.
    public func find(_ directory: UInt64, _ shard: Int) -> InodePointer? {
        guard directory != 0, directory < ShardTable.directories, shard > 0, shard < 1 << 15,
            let index = index(of: ShardTable.key(directory, shard))
        else { return nil }
        return InodePointer(bitPattern: places[index].value)
    }

    /// Places that a walk looks at, one after the other; shards that come and go meanwhile may be met twice or not at all.
    public var placeCount: Int { 1 << shift }
    public func record(at place: Int) -> InodePointer? { InodePointer(bitPattern: places[place].value) }

    /// Enters a record that says whose shard it is. It is not here yet.
    public mutating func insert(_ record: InodePointer) {
        let key = ShardTable.key(record.pointee.parent, record.pointee.shardIndex)
        precondition(record.pointee.isShard && record.pointee.shardIndex > 0 && index(of: key) == nil, "a shard is entered twice")
        if 2 * (count + 1) > 1 << shift { grow() }
        put(Place(key: key, value: UInt(bitPattern: record)))
        count += 1
    }

    /// Takes a record out.
    public mutating func remove(_ record: InodePointer) {
        guard let place = index(of: ShardTable.key(record.pointee.parent, record.pointee.shardIndex)) else {
            preconditionFailure("a shard that is not here goes")
        }
        clear(place)
        count -= 1
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
