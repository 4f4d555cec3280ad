// Setting and removing locks: byte ranges are split and merged as fcntl(2) says, flocks are replaced.
//
// A new range takes the place of whatever its owner held there. Neighbours of the same kind, overlapping or adjacent,
// become one with it; those of the other kind keep what lies outside, which may be two pieces.

enum LockApplied {
    /// Limits or memory; nothing has changed.
    case failed
    case done
    /// Done, and some of the bytes are locked less than before: others may be granted now.
    case reduced
}

extension LockTable {
    /// Sets or removes a range that conflicts with no other owner's.
    mutating func applyRange(
        _ list: UnsafeMutablePointer<LockList>, _ request: LockRequest, _ arena: inout Arena, _ pool: inout PagePool
    ) -> LockApplied {
        // All records that may be needed are made first: the lock's own, and the second piece of one that is split.
        var middle: UnsafeMutablePointer<LockRecord>? = nil
        var piece: UnsafeMutablePointer<LockRecord>? = nil
        let isSplit = splits(list, request)
        if request.kind != .unlock {
            middle = list.pointee.rangeCount < LockTable.locksPerInode ? makeRecord(request, &arena, &pool) : nil
            if middle == nil { return .failed }
        }
        if isSplit {
            piece = list.pointee.rangeCount < LockTable.locksPerInode ? makeRecord(request, &arena, &pool) : nil
            if piece == nil {
                if let middle { free(middle, &arena, &pool) }
                return .failed
            }
        }

        var start = request.start
        var end = request.end
        var applied = LockApplied.done
        // The record before the place that is looked at; nil at the head of the list.
        var previous: UnsafeMutablePointer<LockRecord>? = nil
        while let record = LockTable.after(previous, list), record.pointee.lock.owner != request.owner {
            previous = record
        }
        scan: while let record = LockTable.after(previous, list), record.pointee.lock.owner == request.owner {
            let held = record.pointee.lock
            if held.kind == request.kind {
                if held.end < start, held.end + 1 < start {
                    previous = record
                    continue
                }
                if held.start > end, held.start - 1 > end { break }
                start = min(start, held.start)
                end = max(end, held.end)
                unlinkRange(after: previous, list, &arena, &pool)
                continue
            }
            if held.end < start {
                previous = record
                continue
            }
            if held.start > end { break }
            applied = .reduced
            switch (held.start < start, held.end > end) {
            case (true, true):
                let second = piece.unsafelyUnwrapped
                piece = nil
                second.pointee.lock = held
                second.pointee.lock.start = end + 1
                second.pointee.next = record.pointee.next
                record.pointee.next = second
                record.pointee.lock.end = start - 1
                list.pointee.rangeCount += 1
                previous = record
                break scan
            case (true, false):
                record.pointee.lock.end = start - 1
                previous = record
            case (false, true):
                record.pointee.lock.start = end + 1
                break scan
            case (false, false):
                unlinkRange(after: previous, list, &arena, &pool)
            }
        }
        if let middle {
            middle.pointee.lock.start = start
            middle.pointee.lock.end = end
            middle.pointee.next = LockTable.after(previous, list)
            if let previous { previous.pointee.next = middle } else { list.pointee.ranges = middle }
            list.pointee.rangeCount += 1
        }
        return applied
    }

    /// Whether the request lies strictly inside a range of the same owner that is not of its kind.
    private func splits(_ list: UnsafeMutablePointer<LockList>, _ request: LockRequest) -> Bool {
        var next = list.pointee.ranges
        while let record = next {
            let held = record.pointee.lock
            if held.owner == request.owner, held.kind != request.kind, held.start < request.start,
                held.end > request.end
            {
                return true
            }
            next = record.pointee.next
        }
        return false
    }

    private static func after(
        _ previous: UnsafeMutablePointer<LockRecord>?, _ list: UnsafeMutablePointer<LockList>
    ) -> UnsafeMutablePointer<LockRecord>? {
        if let previous { return previous.pointee.next }
        return list.pointee.ranges
    }

    private mutating func unlinkRange(
        after previous: UnsafeMutablePointer<LockRecord>?, _ list: UnsafeMutablePointer<LockList>,
        _ arena: inout Arena, _ pool: inout PagePool
    ) {
        guard let record = LockTable.after(previous, list) else { return }
        if let previous { previous.pointee.next = record.pointee.next } else { list.pointee.ranges = record.pointee.next }
        list.pointee.rangeCount -= 1
        free(record, &arena, &pool)
    }

    mutating func removeRanges(
        _ list: UnsafeMutablePointer<LockList>, _ arena: inout Arena, _ pool: inout PagePool,
        where matches: (LockRequest) -> Bool
    ) {
        var previous: UnsafeMutablePointer<LockRecord>? = nil
        while let record = LockTable.after(previous, list) {
            if matches(record.pointee.lock) {
                unlinkRange(after: previous, list, &arena, &pool)
            } else {
                previous = record
            }
        }
    }

    /// Sets a flock that conflicts with no other owner's; false at a limit or without memory.
    mutating func applyFlock(
        _ list: UnsafeMutablePointer<LockList>, _ request: LockRequest, _ arena: inout Arena, _ pool: inout PagePool
    ) -> Bool {
        var last: UnsafeMutablePointer<LockRecord>? = nil
        var next = list.pointee.flocks
        while let record = next {
            if record.pointee.lock.owner == request.owner {
                record.pointee.lock.kind = request.kind
                return true
            }
            last = record
            next = record.pointee.next
        }
        guard list.pointee.flockCount < LockTable.locksPerInode, let record = makeRecord(request, &arena, &pool) else {
            return false
        }
        if let last { last.pointee.next = record } else { list.pointee.flocks = record }
        list.pointee.flockCount += 1
        return true
    }

    mutating func removeFlocks(
        _ list: UnsafeMutablePointer<LockList>, _ arena: inout Arena, _ pool: inout PagePool,
        where matches: (LockRequest) -> Bool
    ) {
        var previous: UnsafeMutablePointer<LockRecord>? = nil
        var next = list.pointee.flocks
        while let record = next {
            next = record.pointee.next
            guard matches(record.pointee.lock) else {
                previous = record
                continue
            }
            if let previous { previous.pointee.next = next } else { list.pointee.flocks = next }
            list.pointee.flockCount -= 1
            free(record, &arena, &pool)
        }
    }
}
