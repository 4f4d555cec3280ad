// Reading JSON (RFC 8259): scenarios and calibrations are data files.
//
// Invariants: what is not JSON is refused with its line; nesting is bounded, so no file exhausts the stack.

/// Where a text is no JSON, and why.
public struct JSONError: Error, CustomStringConvertible, Sendable {
    public let line: Int
    public let reason: String
    public var description: String { "line \(line): \(reason)" }
}

extension JSON {
    public static func parse(_ text: String) throws(JSONError) -> JSON {
        var parser = JSONParser(bytes: Array(text.utf8))
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.isAtEnd else { throw parser.error("something follows the value") }
        return value
    }

    /// A member of an object; nil if this is none, or has none of that name.
    public subscript(_ name: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members.last { $0.0 == name }?.1
    }
}

private struct JSONParser {
    let bytes: [UInt8]
    var position = 0
    static var depthMax: Int { 64 }

    var isAtEnd: Bool { position >= bytes.count }

    func error(_ reason: String) -> JSONError {
        JSONError(line: 1 + bytes[..<min(position, bytes.count)].count { $0 == UInt8(ascii: "\n") }, reason: reason)
    }

    mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x0a, 0x0d, 0x09].contains(bytes[position]) { position += 1 }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        guard position < bytes.count, bytes[position] == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }
    private mutating func takeWord(_ word: String) -> Bool {
        let wanted = Array(word.utf8)
        guard bytes.count - position >= wanted.count, Array(bytes[position..<position + wanted.count]) == wanted else { return false }
        position += wanted.count
        return true
    }

    mutating func value(depth: Int) throws(JSONError) -> JSON {
        guard depth < JSONParser.depthMax else { throw error("it is nested too deeply") }
        skipSpace()
        guard position < bytes.count else { throw error("the text ends where a value is expected") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        default: break
        }
        if takeWord("true") { return .bool(true) }
        if takeWord("false") { return .bool(false) }
        if takeWord("null") { return .null }
        return try number()
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSON {
        _ = take("{")
        var members: [(String, JSON)] = []
        if take("}") { return .object(members) }
        repeat {
            skipSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else { throw error("a member's name is expected") }
            let name = try string()
            guard !members.contains(where: { $0.0 == name }) else { throw error("\"\(name)\" is there twice") }
            guard take(":") else { throw error("a colon is expected after \"\(name)\"") }
            members.append((name, try value(depth: depth + 1)))
        } while take(",")
        guard take("}") else { throw error("a comma or } is expected") }
        return .object(members)
    }

    private mutating func array(depth: Int) throws(JSONError) -> JSON {
        _ = take("[")
        var values: [JSON] = []
        if take("]") { return .array(values) }
        repeat { values.append(try value(depth: depth + 1)) } while take(",")
        guard take("]") else { throw error("a comma or ] is expected") }
        return .array(values)
    }

    private mutating func string() throws(JSONError) -> String {
        position += 1
        var text: [UInt8] = []
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text += try escape()
            case 0..<0x20: throw error("a string has a control character in it")
            default: text.append(byte)
            }
        }
        throw error("a string has no end")
    }

    private mutating func escape() throws(JSONError) -> [UInt8] {
        guard position < bytes.count else { throw error("a string has no end") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "n"): return [0x0a]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "r"): return [0x0d]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0c]
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "u"):
            guard position + 4 <= bytes.count, let code = UInt32(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16),
                let scalar = Unicode.Scalar(code)
            else { throw error("a \\u escape is no character") }
            position += 4
            return Array(String(Character(scalar)).utf8)
        default: throw error("there is no such escape")
        }
    }

    private mutating func number() throws(JSONError) -> JSON {
        let start = position
        while position < bytes.count, "+-.eE0123456789".utf8.contains(bytes[position]) { position += 1 }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if let whole = UInt64(text) { return .number(whole) }
        guard Double(text) != nil, let first = text.utf8.first, first != UInt8(ascii: "+"), first != UInt8(ascii: ".") else {
            throw error(text.isEmpty ? "a value is expected" : "\"\(text)\" is no number")
        }
        return .decimal(text)
    }
}
