// When a core that spins for nothing sleeps because threads wait for a CPU.

import Testing

@testable import Microkernel

@Suite struct ParkingTests {
    /// What each of some looks at the number of runnable threads, on two CPUs, makes the core believe.
    private func looks(_ runnable: [Int32]) -> [Bool] {
        var policy = ParkingPolicy()
        policy.cpus = 2
        return runnable.map { policy.isCrowded($0) }
    }

    @Test func oneLookIsNotBelieved() {
        #expect(looks([3, 2, 3, -1, 3, 2, 2]) == [false, false, false, false, false, false, false])
        #expect(looks([2, 3, 4, 3, 3]) == [false, false, true, false, true])
    }
}
