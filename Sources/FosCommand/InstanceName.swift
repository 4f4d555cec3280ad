// Names of instances. With the user id a name is the endpoint of a mount (fos/handshake.h), so both must be unique.

public enum InstanceName {
    public static let bytesMax = 64

    /// Throws unless the name has 1 to 64 letters, digits, `.`, `_` or `-`, and starts with a letter or digit.
    public static func check(_ name: String) throws(CommandFailure) {
        guard (1...bytesMax).contains(name.utf8.count), name.utf8.allSatisfy(allowed), let first = name.utf8.first, alphanumeric(first)
        else {
            throw .usage(
                "bad name '\(name)'; a name has 1 to \(bytesMax) letters, digits, '.', '_' or '-', and starts with a letter or digit")
        }
    }

    /// A name made from the last component of a directory's path.
    public static func suggested(for directory: String) -> String {
        let last = directory.split(separator: "/").last ?? "root"
        let bytes = last.utf8.map { allowed($0) ? $0 : UInt8(ascii: "_") }.drop { !alphanumeric($0) }
        let name = String(decoding: bytes.prefix(bytesMax - 4), as: UTF8.self)
        return name.isEmpty ? "fos" : name
    }

    /// The first of `name`, `name-2`, `name-3` … that is free.
    public static func unused(from name: String, isUsed: (String) -> Bool) -> String {
        if !isUsed(name) { return name }
        var number = 2
        while isUsed("\(name)-\(number)") { number += 1 }
        return "\(name)-\(number)"
    }

    /// The instance name in the source of a mount(8) call: "fos:NAME" or "NAME"; nil for the usual placeholders.
    public static func fromSource(_ source: String) -> String? {
        if source.hasPrefix("fos:") { return String(source.dropFirst(4)) }
        return ["", "none", "fos", "-"].contains(source) ? nil : source
    }

    private static func alphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
    private static func allowed(_ byte: UInt8) -> Bool {
        alphanumeric(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }
}
