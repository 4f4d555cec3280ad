// A mount of its own over a scripted instance, for one test, and the calls that tests make on it.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

/// One mount over one scripted instance, in a directory of its own.
final class Scratch {
    let path: String
    let mock: UnsafeMutablePointer<mock_instance>
    let mount: FuseMount
    let ended = Mutex(0)

    init(locks: FuseMount.Locks = .kernel, change: (inout FuseMount.Configuration) -> Void = { _ in }) throws {
        scripted.withLock { $0 = ScriptedState() }
        var template = Array("/tmp/fos-mount-XXXXXX".utf8CString)
        path = try String(cString: #require(mkdtemp(&template)))
        mock = .allocate(capacity: 1)
        mock_start(mock, UInt32(FrontEndLimits.channels), -1, answerScripted)
        mock_run(mock)
        let files = IntrospectionFiles(names: ["names", "topology"]) { Array("\($0) here\n".utf8) }
        var configuration = FuseMount.Configuration(mountPoint: path, source: "fos:te,st", introspection: files) { print("log:", $0) }
        configuration.locks = locks
        change(&configuration)
        mount = FuseMount(configuration) {}
        do {
            try mount.start(socket: mock.pointee.client_socket)
        } catch {
            mock_stop(mock)
            rmdir(path)
            throw error
        }
    }

    func finish() {
        mount.stop()
        mock_stop(mock)
        mock.deallocate()
        #expect(rmdir(path) == 0)
    }

    func count(_ name: String) -> UInt64 { mount.requestCounts().first { $0.name == name }?.count ?? 0 }

    /// Sends a notice, and waits until it is acknowledged.
    func notify(_ kind: fos_notice_kind, inode: UInt64, name: String = "", child: UInt64 = 0, cookie: UInt64) {
        send(kind, inode: inode, name: name, child: child, cookie: cookie)
        for _ in 0..<2000 where !scripted.withLock({ $0.acknowledged.contains(cookie) }) { usleep(1000) }
        #expect(scripted.withLock { $0.acknowledged.contains(cookie) })
    }

    func send(_ kind: fos_notice_kind, inode: UInt64, name: String = "", child: UInt64 = 0, cookie: UInt64) {
        var notice = fos_notice()
        notice.kind = kind.rawValue
        notice.inode = inode
        notice.child = child
        notice.cookie = cookie
        notice.want_ack = 1
        notice.reply_to = 5
        notice.name_length = UInt32(name.utf8.count)
        withUnsafeMutableBytes(of: &notice.name) { $0.copyBytes(from: Array(name.utf8)) }
        mock_notify(mock, &notice)
    }
}

func contents(_ path: String) -> String? {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = read(descriptor, &bytes, bytes.count)
    return count < 0 ? nil : String(decoding: bytes.prefix(count), as: UTF8.self)
}

func store(_ path: String, _ text: String, flags: Int32 = O_WRONLY | O_CREAT | O_TRUNC) -> Int32 {
    let descriptor = open(path, flags, 0o644)
    guard descriptor >= 0 else { return errno }
    defer { close(descriptor) }
    let bytes = Array(text.utf8)
    return write(descriptor, bytes, bytes.count) == bytes.count ? 0 : errno
}

func names(_ path: String) -> [String]? {
    guard let directory = opendir(path) else { return nil }
    defer { closedir(directory) }
    return entryNames(directory).sorted()
}

/// What an open directory still has to say.
func entryNames(_ directory: OpaquePointer) -> [String] {
    var found: [String] = []
    while let entry = readdir(directory) {
        found.append(withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
    }
    return found
}

/// What a shell command prints.
func run(_ command: String) throws -> String {
    let pipe = try #require(popen(command, "r"))
    defer { pclose(pipe) }
    var text = ""
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, 256, pipe) != nil { text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) }
    return text
}
