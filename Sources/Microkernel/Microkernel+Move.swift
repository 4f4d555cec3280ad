// A core moves to another CPU.
//
// Role: when a program that the instance serves runs on a core's CPU, the two wait for each other; the core can go where
// no program is. Only its thread moves: mailboxes, servers and clients know a core by its number.
// Invariant: no two cores that are pinned share a CPU that was not theirs from the start.

import CFosWire
import CPlatform
import Synchronization

extension Microkernel {
    /// Moves a pinned core's thread to a CPU on which no other core is. False, and nothing has changed, if the core is not
    /// pinned or not running, if the CPU is another core's, or if the system does not let it go there.
    public func move(core: Int, to cpu: Int32) -> Bool {
        coreThreads.withLock { threads in
            let board = fabric.board
            guard threads.indices.contains(core), threads[core] != 0, cpu >= 0, fos_board_cpu(board, UInt32(core)) >= 0,
                !threads.indices.contains(where: { fos_board_cpu(board, UInt32($0)) == cpu })
            else { return false }
            guard withUnsafePointer(to: cpu, { fos_platform_pin_other_thread(threads[core], $0, 1) }) == 0 else { return false }
            fos_board_set_cpu(board, UInt32(core), cpu)
            return true
        }
    }
}
