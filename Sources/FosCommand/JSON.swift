// A JSON value and its text (RFC 8259). Keys keep their order.

public indirect enum JSON {
    case null
    case bool(Bool)
    case number(UInt64)
    /// A number with a fraction, as its digits.
    case decimal(String)
    case string(String)
    case array([JSON])
    case object([(String, JSON)])

    /// The value, or null.
    public static func optional(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }
    public static func optional(_ number: UInt64?) -> JSON { number.map { .number($0) } ?? .null }

    /// Indented by two spaces a level.
    public var text: String { rendered(indent: "") }

    private func rendered(indent: String) -> String {
        let inner = indent + "  "
        switch self {
        case .null: return "null"
        case .bool(let value): return value ? "true" : "false"
        case .number(let value): return String(value)
        case .decimal(let digits): return digits
        case .string(let value): return Self.quoted(value)
        case .array(let values):
            if values.isEmpty { return "[]" }
            return "[\n" + values.map { inner + $0.rendered(indent: inner) }.joined(separator: ",\n") + "\n\(indent)]"
        case .object(let members):
            if members.isEmpty { return "{}" }
            return "{\n"
                + members.map { "\(inner)\(Self.quoted($0.0)): \($0.1.rendered(indent: inner))" }.joined(separator: ",\n")
                + "\n\(indent)}"
        }
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
