// A client that makes one request whenever a test says so, and keeps what it was answered.

import Simulator

class ScriptProgram: SimProgram {
    /// Builds the request; the thread is then started, and the answer is there once `isDone`.
    var build: ((SimThread) -> Void)?
    var isDone = false
    private(set) var status: Int32 = 0
    private let sending: SimStep

    init(_ sending: SimStep) { self.sending = sending }

    /// Takes from the answer what the test wants; `status` is set.
    func heard(_ thread: SimThread) {}

    final override func step(_ thread: SimThread) -> SimStep {
        if let build {
            build(thread)
            self.build = nil
            return sending
        }
        status = thread.status
        heard(thread)
        isDone = true
        return .end
    }
}
