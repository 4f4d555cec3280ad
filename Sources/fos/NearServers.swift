// `fos run --near`: this process, and all that it starts, on CPUs near the servers of a mount.

import CPlatform
import FosCommand
import Glibc
import Instance

/// Sets the affinity of the calling thread (sched_setaffinity(2)), which what it executes or starts inherits.
/// - Parameter directory: on the mount; nil: the mount of the working directory, or the only one.
func stayNear(_ directory: String?) throws(CommandFailure) {
    let mount = try mountToBeNear(directory)
    let cores: [Int]
    do throws(CommandFailure) {
        cores = try InstanceClient(uid: mount.userID ?? 0, name: mount.instanceName ?? "").coreCPUs.filter { $0 >= 0 }
    } catch {
        throw nearFailure("\(shellQuoted(mount.mountPoint)): \(error.description)")
    }
    guard !cores.isEmpty else { throw nearFailure("\(shellQuoted(mount.mountPoint)): its cores have no CPUs of their own; mount it with --cpus") }
    let allowed = CPUList.allowed()
    let near = ProgramPlacement.near(cores: cores, allowed: allowed.cpus)
    guard !near.isEmpty else {
        throw nearFailure(
            "\(shellQuoted(mount.mountPoint)): fos has all CPUs that the command may use (\(allowed.text)); mount it with fewer (--cpus), or leave --near out"
        )
    }
    let result = near.map { Int32($0) }.withUnsafeBufferPointer { fos_platform_pin_thread($0.baseAddress, Int32($0.count)) }
    guard result == 0 else { throw nearFailure("cannot run on CPUs \(CPUList(near).text): \(errorText(-result))") }
}

private func nearFailure(_ text: String) -> CommandFailure { CommandFailure("--near: \(text)", exitStatus: RunExit.failure) }

private func mountToBeNear(_ directory: String?) throws(CommandFailure) -> MountEntry {
    if let directory, let mount = try selectedMounts(directory).first { return mount }
    let table = MountTable.current()
    if let mount = table.mount(containing: canonicalMountPath(".", in: table)), mount.instanceName != nil { return mount }
    let mounts = table.fosMounts
    switch mounts.count {
    case 0: throw nearFailure("there is no fos mount; make one with 'fos mount DIR'")
    case 1: return mounts[0]
    default: throw nearFailure("there are several fos mounts (\(mounts.map { shellQuoted($0.mountPoint) }.joined(separator: ", "))); say which with --mount")
    }
}
