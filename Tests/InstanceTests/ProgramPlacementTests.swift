// Which CPUs `fos run --near` gives a program.

import Testing

@testable import Instance

@Suite struct ProgramPlacementTests {
    /// Two packages of 8 CPUs; 4 share a cache; neighbours are threads of one processor.
    private static func distance(_ a: Int, _ b: Int) -> UInt32 {
        if a / 2 == b / 2 { return 0 }
        if a / 4 == b / 4 { return 10 }
        return a / 8 == b / 8 ? 20 : 40
    }
    private static func near(_ cores: [Int], _ allowed: some Sequence<Int>) -> [Int] {
        ProgramPlacement.near(cores: cores, allowed: Array(allowed), distance: distance)
    }

    @Test func whatSharesACacheIsNear() {
        #expect(ProgramPlacementTests.near([15], 0..<16) == [12, 13, 14])
        #expect(ProgramPlacementTests.near([3, 15], 0..<16) == [0, 1, 2, 12, 13, 14])
        #expect(ProgramPlacementTests.near([14, 15], 0..<16) == [12, 13])
    }
    @Test func elseThePackageAndElseTheMachine() {
        #expect(ProgramPlacementTests.near([12, 13, 14, 15], 0..<16) == [8, 9, 10, 11])
        #expect(ProgramPlacementTests.near([12], 0..<8) == Array(0..<8))
    }
    @Test func onlyWhatTheProgramMayUseAndNeverACores() {
        #expect(ProgramPlacementTests.near([15], [2, 13, 15]) == [13])
        #expect(ProgramPlacementTests.near([15], [15]) == [])
        #expect(ProgramPlacementTests.near([0, 1], 0..<2) == [])
    }
    @Test func thisMachine() {
        // CPUs beyond any that there are: as far as can be, and not left out.
        #expect(ProgramPlacement.near(cores: [0], allowed: [9000]) == [9000])
        #expect(ProgramPlacement.near(cores: [0], allowed: [0]) == [])
    }
}
