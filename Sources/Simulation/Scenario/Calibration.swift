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

/// Names of operations, as calibrations and traces have them (<fos/operation_names.h>).
public enum OperationNames {
    /// Operation numbers are below this (<fos/operations.h>).
    private static var end: UInt16 { 1_000 }
    private static let numbers: [String: UInt16] = {
        var numbers: [String: UInt16] = [:]
        for number in 0..<end {
            let name = String(cString: fos_operation_name(UInt32(number)))
            if !name.isEmpty { numbers[name] = number }
        }
        return numbers
    }()
    public static func number(of name: String) -> UInt16? { numbers[name] }
    /// The name of an operation; its number if it has none.
    public static func name(of operation: UInt16) -> String {
        let name = String(cString: fos_operation_name(UInt32(operation)))
        return name.isEmpty ? String(operation) : name
    }
}
