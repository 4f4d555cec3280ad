// `fos study`: measurements that tell how fos does.

import ArgumentParser

struct StudyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "study", abstract: "Measure fos as the paper does.", subcommands: [StudyScaleCommand.self])
}
