// Sizes as people write and read them: "4G", "512M", "50%"; "1.5 GiB".

/// A number of bytes.
public struct ByteSize: Equatable, Sendable {
    public let bytes: UInt64
    public init(bytes: UInt64) { self.bytes = bytes }

    private static let prefixes: [Character] = ["K", "M", "G", "T", "P", "E"]

    /// Parses a size as tmpfs(5) takes it and a little more: digits, then nothing, `B`, or one of K M G T P E (powers
    /// of 1024, either case, with or without `B` or `iB` after it); or a percentage of the machine's memory, `50%`.
    /// - Parameter memory: bytes of physical memory, for percentages.
    public init(parsing text: String, memory: UInt64) throws(CommandFailure) {
        let wrong = CommandFailure.usage(
            "bad size '\(text)'; give bytes, or a number with K, M, G or T after it, or a percentage of memory: 4G, 50%")
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits) else { throw wrong }
        let suffix = text.dropFirst(digits.count)
        if suffix == "%" {
            let (product, overflow) = (memory / 100).multipliedReportingOverflow(by: number)
            guard !overflow else { throw wrong }
            bytes = product
            return
        }
        let unit = suffix.uppercased()
        if unit.isEmpty || unit == "B" {
            bytes = number
            return
        }
        guard let letter = unit.first, let power = Self.prefixes.firstIndex(of: letter),
            ["", "B", "IB"].contains(String(unit.dropFirst()))
        else { throw wrong }
        let (product, overflow) = number.multipliedReportingOverflow(by: 1 << (10 * UInt64(power + 1)))
        guard !overflow else { throw wrong }
        bytes = product
    }

    /// Three significant digits with a binary prefix, as `ls -h` and `df -h` round, but with the unit named: "1.50 GiB".
    public var text: String {
        var value = Double(bytes)
        var power = 0
        while value >= 1023.5, power < Self.prefixes.count {
            value /= 1024
            power += 1
        }
        guard power > 0 else { return "\(bytes) B" }
        return "\(decimal(value, places: value < 9.995 ? 2 : value < 99.95 ? 1 : 0)) \(Self.prefixes[power - 1])iB"
    }
}

/// A number with a fixed count of decimal places, rounded half up.
func decimal(_ value: Double, places: Int) -> String {
    var scale = 1
    for _ in 0..<places { scale *= 10 }
    let scaled = Int((value * Double(scale)).rounded())
    guard places > 0 else { return String(scaled) }
    let fraction = String(scaled % scale)
    return "\(scaled / scale)." + String(repeating: "0", count: places - fraction.count) + fraction
}

/// A count with its thousands apart: 1234567 is "1,234,567".
public func grouped(_ count: UInt64) -> String {
    var text = ""
    for (position, digit) in String(count).reversed().enumerated() {
        if position > 0, position % 3 == 0 { text.append(",") }
        text.append(digit)
    }
    return String(text.reversed())
}

/// A duration in its two largest units: "3 d 4 h", "12 min 5 s", "42 s".
public func duration(seconds: UInt64) -> String {
    let units: [(String, UInt64)] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)]
    guard let first = units.firstIndex(where: { seconds >= $0.1 }) else { return "0 s" }
    let (name, size) = units[first]
    let rest = seconds % size
    guard first + 1 < units.count, rest / units[first + 1].1 > 0 else { return "\(seconds / size) \(name)" }
    return "\(seconds / size) \(name) \(rest / units[first + 1].1) \(units[first + 1].0)"
}
