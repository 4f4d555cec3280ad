// The figure as SVG: for each number of processes a bar for each method, stacked by where the time went, in a panel for
// each exercise. As in the paper's figure 1, the abscissa is how many allocate at once and the ordinate is time.

extension StudyReport {
    private static var colours: [(String, String, WritableKeyPath<Split, Double>)] {
        [("call", "#4477aa", \.call), ("fault", "#ee6677", \.fault), ("zeroing", "#ccbb44", \.zeroing), ("waiting", "#bbbbbb", \.waiting)]
    }

    /// A whole SVG document (W3C SVG 1.1).
    public var svg: String {
        let panelWidth = 460.0
        let panelHeight = 320.0
        let (left, top, bottom) = (64.0, 56.0, 96.0)
        let panels: [Exercise] = [.reserve, .steady]
        let width = left + Double(panels.count) * (panelWidth + left)
        let height = top + panelHeight + bottom
        var text = """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(number(width, 0))" height="\(number(height, 0))" font-family="sans-serif" font-size="12">
            <rect width="100%" height="100%" fill="white"/>
            <text x="\(number(left, 0))" y="22" font-size="15">Allocating memory and touching the first byte of every page: time per GiB and process</text>

            """
        for (index, exercise) in panels.enumerated() {
            text += panel(exercise, x: left + Double(index) * (panelWidth + left), y: top, width: panelWidth, height: panelHeight)
        }
        var x = left
        for (name, colour, _) in Self.colours {
            text += "<rect x=\"\(number(x, 0))\" y=\"\(number(height - 24, 0))\" width=\"12\" height=\"12\" fill=\"\(colour)\"/>"
            text += "<text x=\"\(number(x + 17, 0))\" y=\"\(number(height - 14, 0))\">\(name)</text>\n"
            x += 90
        }
        return text + "</svg>\n"
    }

    private func panel(_ exercise: Exercise, x: Double, y: Double, width: Double, height: Double) -> String {
        let shown = results.filter { $0.exercise == exercise }
        let most = shown.map(\.split.total).max() ?? 1
        let step = Self.step(most)
        let limit = max(step, (most / step).rounded(.up) * step)
        func rise(_ seconds: Double) -> Double { seconds / limit * height }
        var text =
            "<text x=\"\(number(x, 0))\" y=\"\(number(y - 12, 0))\">\(exercise == .reserve ? "from the reserve" : "steady state, zeroing counted")</text>\n"
        var tick = 0.0
        while tick <= limit * 1.001 {
            let at = y + height - rise(tick)
            text +=
                "<line x1=\"\(number(x, 1))\" x2=\"\(number(x + width, 1))\" y1=\"\(number(at, 1))\" y2=\"\(number(at, 1))\" stroke=\"#dddddd\"/>"
            text += "<text x=\"\(number(x - 6, 1))\" y=\"\(number(at + 4, 1))\" text-anchor=\"end\">\(number(tick, 2))</text>\n"
            tick += step
        }
        text +=
            "<text transform=\"translate(\(number(x - 44, 1)) \(number(y + height / 2, 1))) rotate(-90)\" text-anchor=\"middle\">seconds</text>\n"
        let counts = processCounts
        let groupWidth = width / Double(max(1, counts.count))
        for (group, count) in counts.enumerated() {
            let bars = Method.allCases.compactMap { result($0, exercise, count) }
            let slot = groupWidth / (Double(bars.count) + 0.6)
            for (index, bar) in bars.enumerated() {
                let start = x + Double(group) * groupWidth + (Double(index) + 0.3) * slot
                text += self.bar(bar, x: start + slot * 0.1, width: slot * 0.8, base: y + height, rise: rise)
            }
            text +=
                "<text x=\"\(number(x + (Double(group) + 0.5) * groupWidth, 1))\" y=\"\(number(y + height + 52, 1))\" text-anchor=\"middle\">"
            text += "\(count == 1 ? "1 process" : "\(count) processes at once")</text>\n"
        }
        return text
    }

    private func bar(_ result: StudyResult, x: Double, width: Double, base: Double, rise: (Double) -> Double) -> String {
        var text = ""
        var top = base
        for (name, colour, part) in Self.colours where result.split[keyPath: part] > 0 {
            let size = rise(result.split[keyPath: part])
            top -= size
            text +=
                "<rect x=\"\(number(x, 1))\" y=\"\(number(top, 2))\" width=\"\(number(width, 1))\" height=\"\(number(size, 2))\" fill=\"\(colour)\">"
            text += "<title>\(result.method.title), \(name): \(number(result.split[keyPath: part] * 1000, 2)) ms</title></rect>"
        }
        let middle = x + width / 2
        text +=
            "<text x=\"\(number(middle, 1))\" y=\"\(number(top - 4, 1))\" text-anchor=\"middle\" font-size=\"10\">\(number(result.split.total, 3))</text>"
        let labels = result.method.title.split(separator: ",").map { $0.drop { $0 == " " } }
        for (line, label) in labels.enumerated() {
            let short = label == "transparent huge pages" ? "THP" : String(label)
            text +=
                "<text x=\"\(number(middle, 1))\" y=\"\(number(base + 16 + Double(line) * 13, 1))\" text-anchor=\"middle\" font-size=\"10\">\(short)</text>"
        }
        return text + "\n"
    }

    /// 1, 2 or 5 times a power of ten, for about five lines.
    private static func step(_ most: Double) -> Double {
        var step = 0.001
        while most / step > 6 {
            for factor in [2.0, 2.5, 2.0] {
                step *= factor
                if most / step <= 6 { return step }
            }
        }
        return step
    }
}
