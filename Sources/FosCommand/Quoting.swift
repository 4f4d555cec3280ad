// How paths and other words of the user are shown: so that each message is one line, and what it tells to type can be typed.

private let plain = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:=@%".utf8)

/// A word as a shell reads it back: as it is, 'in quotes', or as $'\n' where it holds control characters.
/// - Parameter always: with quotes also where it needs none.
public func shellQuoted(_ word: String, always: Bool = false) -> String {
    guard word.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else {
        if !always, !word.isEmpty, word.utf8.allSatisfy({ plain.contains($0) || $0 >= 0x80 }) { return word }
        return "'" + word.replacing("'", with: "'\\''") + "'"
    }
    var text = "$'"
    for byte in word.utf8 {
        switch byte {
        case UInt8(ascii: "\n"): text += "\\n"
        case UInt8(ascii: "\t"): text += "\\t"
        case UInt8(ascii: "\r"): text += "\\r"
        case UInt8(ascii: "\\"), UInt8(ascii: "'"): text += "\\" + String(UnicodeScalar(byte))
        case 0x20..<0x7f: text += String(UnicodeScalar(byte))
        default:
            let digits = String(byte, radix: 8)
            text += "\\" + String(repeating: "0", count: 3 - digits.count) + digits
        }
    }
    return text + "'"
}
