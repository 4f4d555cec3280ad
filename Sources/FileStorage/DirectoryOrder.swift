// The order tree of a directory: its entries by cookie, for listings that stay right while entries come and go.
//
// Role: a radix tree of 16-way nodes keyed by cookie. A listing goes on after the cookie that it reached, whatever has
// been inserted or removed meanwhile: an entry present throughout is met exactly once, since its cookie never changes
// and no cookie is given twice.
// Layout: keys are cookies less `base`, which is set anew when the tree is empty, so a directory that is emptied now
// and then keeps a low tree however many entries it has seen. An entry of a node is an address: of a dentry on the
// lowest level, else of a node; 0 for none.
// Invariants: a node without entries is released, but for those on the path of the cookie to be given next, which a
// directory where one file is made and deleted over and over would otherwise allocate each time.

struct DirectoryOrder: BitwiseCopyable {
    private var root: UInt = 0
    private var base: UInt64 = 0
    /// Levels of nodes, 0...16.
    private var height: UInt8 = 0
    /// Cookies below those of the first entries may still come, so `base` stays 0.
    private var staysLow = false

    private static var fanout: Int { 16 }
    private static var nodeBytes: Int { 16 * MemoryLayout<UInt>.size }

    private static func node(_ entry: UInt) -> UnsafeMutablePointer<UInt> {
        UnsafeMutablePointer(bitPattern: entry).unsafelyUnwrapped
    }

    /// From now on any cookie may be entered, not only ever larger ones. The tree is empty.
    mutating func keepLow() {
        base = 0
        staysLow = true
    }

    /// Enters an address under a cookie: `isNext` says that it is larger than any so far, which it is unless `keepLow` was
    /// called. False when out of memory; the tree is then as before.
    mutating func insert(_ cookie: UInt64, _ address: UInt, isNext: Bool = true, _ arena: inout Arena, _ pool: inout PagePool) -> Bool {
        let newBase = root == 0 && !staysLow ? cookie & ~15 : base
        let key = cookie - newBase
        var needed: UInt8 = 1
        while key >> (4 * UInt64(needed)) != 0 { needed += 1 }
        let growth = root == 0 || needed <= height ? 0 : needed - height
        var nodes: UInt8
        if root == 0 {
            nodes = needed
        } else if growth > 0 {
            nodes = growth + needed - 1
        } else {
            nodes = missingNodes(key)
        }
        // All that is needed is taken before anything changes, in a chain linked by the first word.
        var chain: UInt = 0
        while nodes > 0 {
            guard let node = arena.allocate(DirectoryOrder.nodeBytes, zeroed: true, &pool) else {
                while chain != 0 { arena.release(DirectoryOrder.take(&chain), DirectoryOrder.nodeBytes, &pool) }
                return false
            }
            node.storeBytes(of: chain, as: UInt.self)
            chain = UInt(bitPattern: node)
            nodes -= 1
        }

        if root == 0 {
            base = newBase
            height = needed
        }
        for _ in 0..<growth {
            let node = DirectoryOrder.take(&chain)
            node.storeBytes(of: root, as: UInt.self)
            root = UInt(bitPattern: node)
            height += 1
        }
        withUnsafeMutablePointer(to: &root) { root in
            var entry = root
            var shift = 4 * UInt64(height)
            while shift > 0 {
                if entry.pointee == 0 { entry.pointee = UInt(bitPattern: DirectoryOrder.take(&chain)) }
                shift -= 4
                entry = DirectoryOrder.node(entry.pointee) + Int(key >> shift & 15)
            }
            entry.pointee = address
        }
        // The path of the cookie before was kept for this one; where they part it may be empty.
        if isNext, key & 15 == 0, key > 0 { prune(key - 1, tail: key, removing: false, &arena, &pool) }
        return true
    }

    /// Removes the entry of a cookie. `tail` is the cookie to be given next.
    mutating func remove(_ cookie: UInt64, tail: UInt64, _ arena: inout Arena, _ pool: inout PagePool) {
        prune(cookie - base, tail: tail - base, removing: true, &arena, &pool)
    }

    private mutating func prune(
        _ key: UInt64, tail: UInt64, removing: Bool, _ arena: inout Arena, _ pool: inout PagePool
    ) {
        DirectoryOrder.prune(
            &root, level: UInt64(height), key, tail: tail, removing: removing, &arena, &pool)
        if root == 0 { height = 0 }
    }

    private static func prune(
        _ entry: inout UInt, level: UInt64, _ key: UInt64, tail: UInt64, removing: Bool,
        _ arena: inout Arena, _ pool: inout PagePool
    ) {
        if entry == 0 { return }
        if level == 0 {
            if removing { entry = 0 }
            return
        }
        let node = node(entry)
        let index = Int(key >> (4 * (level - 1)) & 15)
        prune(&node[index], level: level - 1, key, tail: tail, removing: removing, &arena, &pool)
        guard node[index] == 0, key >> (4 * level) != tail >> (4 * level) else { return }
        for index in 0..<fanout where node[index] != 0 { return }
        arena.release(node, nodeBytes, &pool)
        entry = 0
    }

    /// The address with the smallest cookie at or after this one; nil if there is none. Any value is safe.
    func next(from cookie: UInt64) -> UInt? {
        let key = cookie < base ? 0 : cookie - base
        guard root != 0, key >> (4 * UInt64(height)) == 0 else { return nil }
        return DirectoryOrder.first(root, level: UInt64(height), key)
    }

    private static func first(_ entry: UInt, level: UInt64, _ from: UInt64) -> UInt? {
        if level == 0 { return entry }
        let node = node(entry)
        let shift = 4 * (level - 1)
        let start = Int(from >> shift)
        for index in start..<fanout where node[index] != 0 {
            let from = index == start ? from & (1 << shift - 1) : 0
            if let found = first(node[index], level: level - 1, from) { return found }
        }
        return nil
    }

    /// Releases all nodes; the entries are the caller's.
    mutating func destroy(_ arena: inout Arena, _ pool: inout PagePool) {
        DirectoryOrder.destroy(root, level: height, &arena, &pool)
        let low = staysLow
        self = DirectoryOrder()
        staysLow = low
    }

    private static func destroy(_ entry: UInt, level: UInt8, _ arena: inout Arena, _ pool: inout PagePool) {
        guard entry != 0, level > 0 else { return }
        let node = node(entry)
        if level > 1 {
            for index in 0..<fanout { destroy(node[index], level: level - 1, &arena, &pool) }
        }
        arena.release(node, nodeBytes, &pool)
    }

    /// Nodes that the path to a key inside the tree's range lacks.
    private func missingNodes(_ key: UInt64) -> UInt8 {
        var entry = root
        var level = height
        while level > 0 {
            if entry == 0 { return level }
            level -= 1
            entry = DirectoryOrder.node(entry)[Int(key >> (4 * UInt64(level)) & 15)]
        }
        return 0
    }

    private static func take(_ chain: inout UInt) -> UnsafeMutableRawPointer {
        let node = UnsafeMutableRawPointer(bitPattern: chain).unsafelyUnwrapped
        chain = node.load(as: UInt.self)
        node.storeBytes(of: 0, as: UInt.self)
        return node
    }
}
