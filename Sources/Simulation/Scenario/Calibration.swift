// A calibration: what messages and requests cost, as a data file.
//
// Role: `Costs` from JSON. Files of their own, so that a machine can be measured (`fos sim --calibrate`) and its figures kept;
// docs/simulation.md says how each is come by.

import CFosWire
import FosCommand
public import Simulator

extension Costs {
    /// - Parameter text: a calibration file's. Times in it are nanoseconds with a fraction.
    public init(calibration text: String) throws(ScenarioError) {
        let json: JSON
        do throws(JSONError) { json = try JSON.parse(text) } catch { throw ScenarioError("\(error)") }
        var reader = try MemberReader(json, of: "the calibration")
        _ = try reader.string("machine")
        guard let message = reader.take("message") else { throw ScenarioError("the calibration has no \"message\"") }
        self.init(
            message: try MessageCost(json: message), turn: try reader.time("turn"), response: try reader.time("response"),
            send: try reader.time("send"), bulkByte: try reader.time("bulkByte"), clientSend: try reader.time("clientSend"),
            clientReceive: try reader.time("clientReceive"), clientWork: try reader.time("clientWork"))
        if let zero = reader.take("zeroByte") { zeroByte = try MemberReader.time(zero, "zeroByte") }
        if let json = reader.take("service") {
            guard case .object(let members) = json else { throw ScenarioError("\"service\" is no object") }
            for (name, value) in members {
                guard let operation = OperationNames.number(of: name) else {
                    throw ScenarioError("\"service\" has \"\(name)\", which is no operation")
                }
                service[operation] = try MemberReader.time(value, name)
            }
        }
        try reader.finish()
    }
}

extension MessageCost {
    /// {"mesh": {"base", "perHop", "most"}} or {"coherent": {"sameCore", "sameCache", "samePackage", "otherPackage"}}
    init(json: JSON) throws(ScenarioError) {
        var reader = try MemberReader(json, of: "\"message\"")
        if let json = reader.take("mesh") {
            var mesh = try MemberReader(json, of: "\"mesh\"")
            self = .mesh(base: try mesh.time("base"), perHop: try mesh.time("perHop"), most: try mesh.time("most"))
            try mesh.finish()
        } else if let json = reader.take("coherent") {
            var coherent = try MemberReader(json, of: "\"coherent\"")
            self = .coherent(
                sameCore: try coherent.time("sameCore"), sameCache: try coherent.time("sameCache"),
                samePackage: try coherent.time("samePackage"), otherPackage: try coherent.time("otherPackage"))
            try coherent.finish()
        } else {
            throw ScenarioError("\"message\" is neither mesh nor coherent")
        }
        try reader.finish()
    }
}

extension MemberReader {
    /// Nanoseconds, as picoseconds.
    mutating func time(_ name: String) throws(ScenarioError) -> VirtualTime {
        guard let json = take(name) else { throw ScenarioError("\"\(name)\" is missing") }
        return try MemberReader.time(json, name)
    }
    static func time(_ json: JSON, _ name: String) throws(ScenarioError) -> VirtualTime {
        let nanoseconds: Double? = switch json {
        case .number(let whole): Double(whole)
        case .decimal(let digits): Double(digits)
        default: nil
        }
        guard let nanoseconds, nanoseconds >= 0, nanoseconds < 1e9 else { throw ScenarioError("\"\(name)\" is no time in nanoseconds") }
        return VirtualTime(nanoseconds * 1000)
    }
}

/// Names of the operations that a calibration may list, as operations.h has them.
public enum OperationNames {
    private static let all: [(String, fos_operation)] = [
        ("PING", FOS_OP_PING), ("STATISTICS", FOS_OP_STATISTICS), ("TICK", FOS_OP_TICK), ("NAME_LOOKUP", FOS_OP_NAME_LOOKUP),
        ("LOOKUP", FOS_OP_LOOKUP), ("GETATTR", FOS_OP_GETATTR), ("SETATTR", FOS_OP_SETATTR), ("READLINK", FOS_OP_READLINK),
        ("SYMLINK", FOS_OP_SYMLINK), ("MKNOD", FOS_OP_MKNOD), ("MKDIR", FOS_OP_MKDIR), ("UNLINK", FOS_OP_UNLINK), ("RMDIR", FOS_OP_RMDIR),
        ("RENAME", FOS_OP_RENAME), ("LINK", FOS_OP_LINK), ("READ", FOS_OP_READ), ("WRITE", FOS_OP_WRITE), ("STATFS", FOS_OP_STATFS),
        ("READDIR", FOS_OP_READDIR), ("CREATE", FOS_OP_CREATE), ("SETLK", FOS_OP_SETLK), ("OPEN", FOS_OP_OPEN), ("RELEASE", FOS_OP_RELEASE),
        ("MAP", FOS_OP_MAP), ("MEMORY_ALLOCATE", FOS_OP_MEMORY_ALLOCATE), ("MEMORY_FREE", FOS_OP_MEMORY_FREE),
    ]
    public static func number(of name: String) -> UInt16? { all.first { $0.0 == name }.map { UInt16($0.1.rawValue) } }
    /// The name of an operation; its number if it has none here.
    public static func name(of operation: UInt16) -> String { all.first { UInt16($0.1.rawValue) == operation }?.0 ?? String(operation) }
}
