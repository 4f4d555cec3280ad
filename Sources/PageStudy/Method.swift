// The ways of getting memory that figure 1 compares, and what is measured of each.

public enum Method: String, CaseIterable, Sendable {
    case linuxSmall = "linux-4k"
    case linuxHuge = "linux-thp"
    case fosSmall = "fos-4k"
    case fosHuge = "fos-2m"

    public var title: String {
        switch self {
        case .linuxSmall: "Linux, 4 KiB pages"
        case .linuxHuge: "Linux, transparent huge pages"
        case .fosSmall: "fos, 4 KiB frames"
        case .fosHuge: "fos, 2 MiB frames"
        }
    }
    public var isFos: Bool { self == .fosSmall || self == .fosHuge }
    /// Of the memory fleet.
    public var frameBytes: Int { self == .fosHuge ? 2 << 20 : 4096 }
}

/// Where the time of one run went, in seconds, of one process. The parts add up to `total`.
public struct Split: Sendable, Equatable {
    /// System calls that map and unmap.
    public var call = 0.0
    /// Touching the first byte of every page, and faulting pages in, less the zeroing in it.
    public var fault = 0.0
    /// Zeroing in the process's way: in Linux's faults, or by the server while the process waits.
    public var zeroing = 0.0
    /// Waiting for answers of the fleet, or for a processor.
    public var waiting = 0.0
    public var total: Double { call + fault + zeroing + waiting }

    public init(call: Double = 0, fault: Double = 0, zeroing: Double = 0, waiting: Double = 0) {
        self.call = call
        self.fault = fault
        self.zeroing = zeroing
        self.waiting = waiting
    }

    static func + (a: Split, b: Split) -> Split {
        Split(call: a.call + b.call, fault: a.fault + b.fault, zeroing: a.zeroing + b.zeroing, waiting: a.waiting + b.waiting)
    }
    static func * (a: Split, factor: Double) -> Split {
        Split(call: a.call * factor, fault: a.fault * factor, zeroing: a.zeroing * factor, waiting: a.waiting * factor)
    }

    /// The run with the median total: its parts belong together.
    public static func median(_ runs: [Split]) -> Split? {
        runs.isEmpty ? nil : runs.sorted { $0.total < $1.total }[runs.count / 2]
    }
}

/// What is run.
public enum Exercise: String, CaseIterable, Sendable {
    /// Allocate and touch, with all that is needed ready: the paper's figure 1.
    case reserve
    /// Allocate, touch, free, again and again, so that what is freed must be zeroed before it is had again.
    case steady
}
