// Tree: all that can be seen of a directory and below, as one line a name, for comparison.

import Glibc
import LoopKernel

enum Tree {
    /// Lines by path below `root`, sorted. Names of one file say which is the first of them.
    static func snapshot(_ fs: any FileSystemUnderTest, _ root: String) -> [String] {
        fs.user = .root
        var lines: [String] = []
        var firstName: [UInt64: String] = [:]
        func walk(_ path: String, _ shown: String) {
            guard let entries = try? fs.list(path) else { return lines.append("\(shown) cannot be listed") }
            for entry in entries {
                let child = path + "/" + entry.name, name = shown + "/" + entry.name
                do {
                    lines.append(name + " " + (try line(fs, child, name, entry, &firstName)))
                } catch { lines.append("\(name) fails with \(error)") }
                if entry.type == UInt8(FileType.directory >> 12) { walk(child, name) }
            }
        }
        walk(root, "")
        return lines
    }

    private static func line(
        _ fs: any FileSystemUnderTest, _ path: String, _ name: String, _ entry: ListedEntry, _ firstName: inout [UInt64: String]
    ) throws -> String {
        let status = try fs.status(path, follow: false)
        var text = "mode \(String(status.mode, radix: 8)) links \(status.links) owner \(status.uid):\(status.gid)"
        if UInt32(entry.type) != status.type >> 12 { text += " LISTED AS \(entry.type)" }
        if entry.inode != status.inode { text += " LISTED AS ANOTHER INODE" }
        switch status.type {
        case FileType.regular:
            let bytes = try fs.contents(path)
            var hash = LoopHash()
            bytes.withUnsafeBytes { hash.mix($0) }
            text += " size \(status.size) data \(bytes.count):\(String(hash.value, radix: 16))"
        case FileType.symlink: text += " to \(try fs.readlink(path))"
        case FileType.character, FileType.block: text += " device \(status.device)"
        default: break
        }
        if status.type != FileType.directory {
            if let first = firstName[status.inode] { text += " same as \(first)" } else { firstName[status.inode] = name }
        }
        if fs.features.contains(.extendedAttributes), status.type == FileType.regular || status.type == FileType.directory {
            for attribute in try fs.attributeNames(path, follow: false) {
                text += " \(attribute)=\(try fs.attribute(path, attribute, follow: false).map { String($0) }.joined(separator: ","))"
            }
        }
        return text
    }

    static func difference(_ left: [String], _ right: [String]) -> String {
        let missing = Set(left).subtracting(right).sorted().prefix(8).map { "- \($0)" }
        let extra = Set(right).subtracting(left).sorted().prefix(8).map { "+ \($0)" }
        return (missing + extra).joined(separator: "\n")
    }

    static func remove(_ fs: any FileSystemUnderTest, _ path: String) {
        fs.user = .root
        for entry in (try? fs.list(path)) ?? [] {
            let child = path + "/" + entry.name
            if entry.type == UInt8(FileType.directory >> 12) { remove(fs, child) } else { try? fs.unlink(child) }
        }
        try? fs.rmdir(path)
    }
}
