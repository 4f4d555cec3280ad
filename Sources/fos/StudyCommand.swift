// `fos study`: measurements that tell how a factored service does against Linux.

import ArgumentParser

struct StudyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "study", abstract: "Measure fos against Linux, and how it scales, as the paper does.",
        subcommands: [StudyPagesCommand.self, StudyScaleCommand.self, StudyPagesWorkerCommand.self, StudyPagesMountCommand.self])
}
