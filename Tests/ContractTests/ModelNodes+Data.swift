// ModelNodes: attributes, data, holes, extended attributes and locks.

import Glibc

extension ModelNodes {
    // MARK: Attributes

    func change(_ number: UInt64, _ change: NodeChange) throws(Errno) {
        let node = try node(number)
        if let uid = change.uid {
            guard user.uid == 0 || (user.uid == node.uid && uid == node.uid) else { throw Errno(EPERM) }
        }
        if let gid = change.gid {
            guard user.uid == 0 || (user.uid == node.uid && (isMember(gid) || gid == node.gid)) else { throw Errno(EPERM) }
        }
        if change.mode != nil { guard owns(node) else { throw Errno(EPERM) } }
        // A chown to nobody else still takes privilege away, which counts as a change of mode if there is some.
        if change.killsPrivilege, change.size == nil, !node.isDirectory {
            let privilege = node.mode & ModeBit.setUser != 0 || node.mode & ModeBit.setGroup != 0 && node.mode & ModeBit.groupExecute != 0
            guard owns(node) || !privilege else { throw Errno(EPERM) }
        }
        for time in [change.accessed, change.modified] {
            if case .at = time, !owns(node) { throw Errno(EPERM) }
        }
        if change.size == nil, change.accessed == .now || change.modified == .now {
            // Both now: whoever may write may do it; else it counts as a given time.
            if !owns(node) {
                guard change.accessed == .now, change.modified == .now else { throw Errno(EPERM) }
                try require(2, node)
            }
        }
        if let size = change.size {
            guard node.type == FileType.regular else { throw Errno(EINVAL) }
            guard size <= UInt64(Int64.max) else { throw Errno(EFBIG) }
            if change.killsPrivilege { dropPrivilege(node) }
            if change.modified == .omit, size == node.size { return }
            resize(node, size)
        }
        if change.uid != nil || change.gid != nil || change.killsPrivilege && change.size == nil {
            if !node.isDirectory, change.killsPrivilege {
                node.mode &= ~ModeBit.setUser
                if node.mode & ModeBit.groupExecute != 0 { node.mode &= ~ModeBit.setGroup }
                // Without group execution the bit is no privilege, but who is not in the group loses it all the same.
                if node.mode & ModeBit.setGroup != 0, user.uid != 0, !isMember(node.gid) { node.mode &= ~ModeBit.setGroup }
            }
            if let uid = change.uid { node.uid = uid }
            if let gid = change.gid { node.gid = gid }
        }
        if let mode = change.mode {
            node.mode = node.type | mode
            if user.uid != 0, !isMember(node.gid) { node.mode &= ~ModeBit.setGroup }
        }
        let time = now()
        switch change.accessed {
        case .now: node.accessed = time
        case .at(let given): node.accessed = given
        case .omit: break
        }
        switch change.modified {
        case .now: node.modified = time
        case .at(let given): node.modified = given
        case .omit: break
        }
        node.changed = time
    }

    /// What a write or a truncation by someone without CAP_FSETID takes away.
    func dropPrivilege(_ node: ModelNode) {
        guard user.uid != 0, node.type == FileType.regular else { return }
        node.mode &= ~ModeBit.setUser
        if node.mode & ModeBit.groupExecute != 0 || !isMember(node.gid) { node.mode &= ~ModeBit.setGroup }
    }

    // MARK: Data

    func resize(_ node: ModelNode, _ size: UInt64) {
        if size < node.size {
            let last = (size + Self.page - 1) / Self.page
            for index in node.pages.keys where index >= last { node.pages[index] = nil }
            let inside = Int(size % Self.page)
            if inside > 0, node.pages[size / Self.page] != nil {
                for place in inside..<Int(Self.page) { node.pages[size / Self.page]![place] = 0 }
            }
        }
        node.size = size
        let time = now()
        node.modified = time
        node.changed = time
    }

    func peek(_ node: ModelNode, _ offset: UInt64, _ count: Int) -> [UInt8] {
        guard offset < node.size else { return [] }
        let end = min(node.size, offset + UInt64(count))
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(end - offset))
        var place = offset
        while place < end {
            let inside = Int(place % Self.page)
            let part = min(Int(Self.page) - inside, Int(end - place))
            if let page = node.pages[place / Self.page] {
                bytes += page[inside..<inside + part]
            } else {
                bytes += [UInt8](repeating: 0, count: part)
            }
            place += UInt64(part)
        }
        return bytes
    }

    func poke(_ node: ModelNode, _ offset: UInt64, _ bytes: [UInt8]) {
        var done = 0
        while done < bytes.count {
            let place = offset + UInt64(done)
            let inside = Int(place % Self.page)
            let part = min(Int(Self.page) - inside, bytes.count - done)
            var page = node.pages[place / Self.page] ?? [UInt8](repeating: 0, count: Int(Self.page))
            page.replaceSubrange(inside..<inside + part, with: bytes[done..<done + part])
            node.pages[place / Self.page] = page
            done += part
        }
        node.size = max(node.size, offset + UInt64(bytes.count))
    }

    func read(_ number: UInt64, _ count: Int, at offset: UInt64, _ flags: Int32) throws(Errno) -> [UInt8] {
        let node = try node(number)
        guard !node.isDirectory else { throw Errno(EISDIR) }
        if flags & OpenFlags.noAccessTime == 0 { node.accessed = now() }
        return peek(node, offset, count)
    }
    func write(_ number: UInt64, _ bytes: [UInt8], at offset: UInt64, _ flags: Int32) throws(Errno) -> (offset: UInt64, count: Int) {
        let node = try node(number)
        let start = flags & O_APPEND != 0 ? node.size : offset
        let room = UInt64(Int64.max) - start
        let bytes = UInt64(bytes.count) > room ? Array(bytes.prefix(Int(room))) : bytes
        dropPrivilege(node)
        poke(node, start, bytes)
        let time = now()
        node.modified = time
        node.changed = time
        return (start, bytes.count)
    }

    func allocate(_ number: UInt64, _ mode: Int32, _ offset: Int64, _ length: Int64) throws(Errno) {
        let node = try node(number)
        guard node.type == FileType.regular else { throw Errno(node.isDirectory ? EISDIR : ENODEV) }
        guard mode & (FallocateMode.collapse | FallocateMode.insert | 64) == 0 else { throw Errno(EOPNOTSUPP) }
        let end = UInt64(offset) + UInt64(length)
        if mode & (FallocateMode.punchHole | FallocateMode.zero) != 0 {
            var place = UInt64(offset)
            let last = min(end, max(node.size, ((node.size + Self.page - 1) / Self.page) * Self.page))
            while place < last {
                let inside = Int(place % Self.page)
                let part = min(Int(Self.page) - inside, Int(last - place))
                if part == Int(Self.page), mode & FallocateMode.punchHole != 0 {
                    node.pages[place / Self.page] = nil
                } else if node.pages[place / Self.page] != nil {
                    for index in inside..<inside + part { node.pages[place / Self.page]![index] = 0 }
                }
                place += UInt64(part)
            }
        }
        if mode & FallocateMode.punchHole == 0 { node.hasVagueHoles = true }
        dropPrivilege(node)
        if mode & FallocateMode.keepSize == 0 { node.size = max(node.size, end) }
        let time = now()
        node.modified = time
        node.changed = time
    }

    func seek(_ number: UInt64, _ offset: UInt64, _ whence: Int32) throws(Errno) -> UInt64 {
        let node = try node(number)
        guard offset < node.size else { throw Errno(ENXIO) }
        let wantsData = whence == Seek.data
        var page = offset / Self.page
        if wantsData {
            // The nearest page with data from here on.
            guard let next = node.pages.keys.filter({ $0 >= page }).min() else { throw Errno(ENXIO) }
            let start = max(offset, next * Self.page)
            guard start < node.size else { throw Errno(ENXIO) }
            return start
        }
        while page * Self.page < node.size, node.pages[page] != nil { page += 1 }
        return min(node.size, max(offset, page * Self.page))
    }

    func copyRange(_ from: UInt64, _ fromOffset: UInt64, _ to: UInt64, _ toOffset: UInt64, _ length: Int) throws(Errno) -> Int {
        let source = try node(from), target = try node(to)
        guard !source.isDirectory, !target.isDirectory else { throw Errno(EISDIR) }
        guard source.type == FileType.regular, target.type == FileType.regular else { throw Errno(EINVAL) }
        // The range ends with the file before it is looked at for overlap.
        let length = fromOffset < source.size ? min(length, Int(clamping: source.size - fromOffset)) : 0
        if source === target, fromOffset < toOffset + UInt64(length), toOffset < fromOffset + UInt64(length), length > 0 {
            throw Errno(EINVAL)
        }
        let bytes = peek(source, fromOffset, length)
        if bytes.isEmpty { return 0 }
        dropPrivilege(target)
        poke(target, toOffset, bytes)
        target.hasVagueHoles = true
        source.accessed = now()
        let time = now()
        target.modified = time
        target.changed = time
        return bytes.count
    }

    // MARK: Extended attributes

    /// xattr(7): user attributes are for files and directories, and need the permissions of data.
    private func requireAttribute(_ node: ModelNode, _ name: String, writing: Bool) throws(Errno) {
        if name.hasPrefix("user.") {
            guard node.type == FileType.regular || node.isDirectory else { throw Errno(writing ? EPERM : ENODATA) }
            if writing, node.isDirectory, node.mode & ModeBit.sticky != 0, !owns(node) { throw Errno(EPERM) }
            try require(writing ? 2 : 4, node)
            guard name.utf8.count > 5 else { throw Errno(EINVAL) }
        } else if name.hasPrefix("trusted.") {
            guard user.uid == 0 else { throw Errno(writing ? EPERM : ENODATA) }
        } else {
            if writing, !name.hasPrefix("security."), !name.hasPrefix("system.") { try require(2, node) }
            throw Errno(EOPNOTSUPP)
        }
    }
    func setAttribute(_ number: UInt64, _ name: String, _ value: [UInt8], _ flags: Int32) throws(Errno) {
        let node = try node(number)
        try requireAttribute(node, name, writing: true)
        if flags & 1 != 0, node.attributes[name] != nil { throw Errno(EEXIST) }
        if flags & 2 != 0, node.attributes[name] == nil { throw Errno(ENODATA) }
        node.attributes[name] = value
        node.changed = now()
    }
    func attribute(_ number: UInt64, _ name: String) throws(Errno) -> [UInt8] {
        let node = try node(number)
        try requireAttribute(node, name, writing: false)
        guard let value = node.attributes[name] else { throw Errno(ENODATA) }
        return value
    }
    func attributeNames(_ number: UInt64) throws(Errno) -> [String] { try node(number).attributes.keys.sorted() }
    func removeAttribute(_ number: UInt64, _ name: String) throws(Errno) {
        let node = try node(number)
        try requireAttribute(node, name, writing: true)
        guard node.attributes.removeValue(forKey: name) != nil else { throw Errno(ENODATA) }
        node.changed = now()
    }

    // MARK: Locks

    func lock(_ number: UInt64, owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) {
        let node = try node(number)
        let end = length == 0 ? Int64.max : start + length - 1
        if kind != F_UNLCK, conflict(node, owner, kind, start, end) != nil { throw Errno(EAGAIN) }
        // What the owner had in the range is replaced; the rest of it stays.
        var kept: [(owner: UInt64, kind: Int32, start: Int64, end: Int64)] = []
        for held in node.locks {
            guard held.owner == owner, held.start <= end, start <= held.end else {
                kept.append(held)
                continue
            }
            if held.start < start { kept.append((owner, held.kind, held.start, start - 1)) }
            if held.end > end { kept.append((owner, held.kind, end + 1, held.end)) }
        }
        if kind != F_UNLCK { kept.append((owner, kind, start, end)) }
        node.locks = kept
    }
    private func conflict(_ node: ModelNode, _ owner: UInt64, _ kind: Int32, _ start: Int64, _ end: Int64) -> (
        owner: UInt64, kind: Int32, start: Int64, end: Int64
    )? {
        node.locks.filter { $0.owner != owner && $0.start <= end && start <= $0.end && (kind == F_WRLCK || $0.kind == F_WRLCK) }
            .min { $0.start < $1.start }
    }
    func getLock(_ number: UInt64, owner: UInt64, _ kind: Int32, _ start: Int64, _ length: Int64) throws(Errno) -> LockFound? {
        let end = length == 0 ? Int64.max : start + length - 1
        return conflict(try node(number), owner, kind, start, end).map {
            LockFound(kind: $0.kind, start: $0.start, length: $0.end == .max ? 0 : $0.end - $0.start + 1)
        }
    }
    func flock(_ number: UInt64, owner: UInt64, _ operation: Int32) throws(Errno) {
        let node = try node(number)
        guard operation != LOCK_UN else {
            node.flocks[owner] = nil
            return
        }
        for (other, held) in node.flocks where other != owner && (operation == LOCK_EX || held == LOCK_EX) { throw Errno(EAGAIN) }
        node.flocks[owner] = operation
    }
}
