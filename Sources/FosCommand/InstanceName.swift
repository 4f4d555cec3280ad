// Names of instances. With the user id a name is the endpoint of a mount (fos/handshake.h), so both must be unique.

public enum InstanceName {
    public static let bytesMax = 64

    /// Throws unless the name has 1 to 64 letters, digits, `.`, `_` or `-`, and starts with a letter or digit.
    public static func check(_ name: String) throws(CommandFailure) {
        guard (1...bytesMax).contains(name.utf8.count), name.utf8.allSatisfy(allowed), let first = name.utf8.first, alphanumeric(first)
        else {
            throw .usage(
                "bad name \(shellQuoted(name, always: true)); a name has 1 to \(bytesMax) letters, digits, '.', '_' or '-', and starts with a letter or digit")
        }
    }

    /// A name made from the last component of a directory's path.
    public static func suggested(for directory: String) -> String {
        let last = directory.utf8.split(separator: UInt8(ascii: "/")).last ?? "root".utf8[...]
        let bytes = last.map { allowed($0) ? $0 : UInt8(ascii: "_") }.drop { !alphanumeric($0) }
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

    /// The name that the source of a mount(8) call suggests: "fos:NAME", "NAME", or a path that ends in it; nil for the usual
    /// placeholders. Many lines of an fstab(5) may have the same source, so it is a suggestion only.
    public static func suggested(bySource source: String) -> String? {
        if source.hasPrefix("fos:") { return suggested(for: String(source.dropFirst(4))) }
        return ["", "none", "fos", "-"].contains(source) ? nil : suggested(for: source)
    }

    private static func alphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
    private static func allowed(_ byte: UInt8) -> Bool {
        alphanumeric(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }
}
