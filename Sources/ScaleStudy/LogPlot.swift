// A plot with two logarithmic axes, as SVG (W3C SVG 1.1): the way the paper shows throughput against cores.

/// One panel: labelled axes, curves with marks, and a legend.
struct LogPlot {
    struct Curve {
        var name: String
        var colour: String
        var isDashed = false
        var hasMarks = true
        var points: [(x: Double, y: Double)]
    }
    var title: String
    var xLabel: String
    var yLabel: String
    var curves: [Curve]

    static let width = 420.0
    static let height = 300.0
    /// Room for labels: left, above, and below.
    static let margins = (left: 64.0, top: 34.0, bottom: 92.0)

    /// Powers of ten that hold all values. Values that are not positive have no place on such an axis.
    private static func decades(_ values: [Double]) -> (low: Int, high: Int) {
        let positive = values.filter { $0 > 0 && $0.isFinite }
        guard let least = positive.min(), let most = positive.max() else { return (0, 1) }
        var low = 0
        while power(low) > least { low -= 1 }
        while power(low + 1) <= least { low += 1 }
        var high = low + 1
        while power(high) < most { high += 1 }
        return (low, high)
    }
    private static func power(_ exponent: Int) -> Double {
        var result = 1.0
        for _ in 0..<exponent.magnitude { result *= 10 }
        return exponent < 0 ? 1 / result : result
    }
    /// Binary logarithm of a positive number, which is all that placing needs.
    private static func logarithm(_ value: Double) -> Double {
        let exponent = value.exponent
        // The significand is in 1 ..< 2: four steps of squaring give 2^-24, far below a pixel.
        var fraction = value.significand
        var result = Double(exponent)
        var bit = 0.5
        for _ in 0..<24 {
            fraction *= fraction
            if fraction >= 2 {
                fraction /= 2
                result += bit
            }
            bit /= 2
        }
        return result
    }

    /// The panel as a group of SVG elements whose origin is its upper left corner.
    var svg: String {
        let all = curves.flatMap(\.points)
        let x = Self.decades(all.map(\.x))
        let y = Self.decades(all.map(\.y))
        let (left, top) = (Self.margins.left, Self.margins.top)
        let ten = Self.logarithm(10)
        func place(_ value: Double, _ range: (low: Int, high: Int), _ length: Double) -> Double {
            (Self.logarithm(value) / ten - Double(range.low)) / Double(range.high - range.low) * length
        }
        func across(_ value: Double) -> Double { left + place(value, x, Self.width) }
        func down(_ value: Double) -> Double { top + Self.height - place(value, y, Self.height) }

        var text = "<text x=\"\(digits(left, 0))\" y=\"\(digits(top - 12, 0))\" font-weight=\"bold\">\(escaped(title))</text>\n"
        text +=
            "<rect x=\"\(digits(left, 1))\" y=\"\(digits(top, 1))\" width=\"\(digits(Self.width, 1))\" height=\"\(digits(Self.height, 1))\" fill=\"none\" stroke=\"black\"/>\n"
        for exponent in x.low...x.high {
            let at = across(Self.power(exponent))
            text += line(at, top, at, top + Self.height, "#dddddd")
            text +=
                "<text x=\"\(digits(at, 1))\" y=\"\(digits(top + Self.height + 16, 1))\" text-anchor=\"middle\">\(label(exponent))</text>\n"
        }
        for exponent in y.low...y.high {
            let at = down(Self.power(exponent))
            text += line(left, at, left + Self.width, at, "#dddddd")
            text += "<text x=\"\(digits(left - 6, 1))\" y=\"\(digits(at + 4, 1))\" text-anchor=\"end\">\(label(exponent))</text>\n"
        }
        text +=
            "<text x=\"\(digits(left + Self.width / 2, 1))\" y=\"\(digits(top + Self.height + 34, 1))\" text-anchor=\"middle\">\(escaped(xLabel))</text>\n"
        text +=
            "<text transform=\"translate(\(digits(14, 0)) \(digits(top + Self.height / 2, 1))) rotate(-90)\" text-anchor=\"middle\">\(escaped(yLabel))</text>\n"
        for curve in curves {
            let points = curve.points.filter { $0.x > 0 && $0.y > 0 }
            let path = points.map { "\(digits(across($0.x), 1)),\(digits(down($0.y), 1))" }.joined(separator: " ")
            text +=
                "<polyline points=\"\(path)\" fill=\"none\" stroke=\"\(curve.colour)\" stroke-width=\"2\"\(curve.isDashed ? " stroke-dasharray=\"6 4\"" : "")/>\n"
            if curve.hasMarks {
                for point in points {
                    text +=
                        "<circle cx=\"\(digits(across(point.x), 1))\" cy=\"\(digits(down(point.y), 1))\" r=\"3\" fill=\"\(curve.colour)\"/>\n"
                }
            }
        }
        for (index, curve) in curves.enumerated() {
            let at = (x: left + Double(index % 2) * 210, y: top + Self.height + 54 + Double(index / 2) * 18)
            text +=
                "<line x1=\"\(digits(at.x, 1))\" y1=\"\(digits(at.y, 1))\" x2=\"\(digits(at.x + 24, 1))\" y2=\"\(digits(at.y, 1))\" stroke=\"\(curve.colour)\" stroke-width=\"2\"\(curve.isDashed ? " stroke-dasharray=\"6 4\"" : "")/>"
            text += "<text x=\"\(digits(at.x + 30, 1))\" y=\"\(digits(at.y + 4, 1))\">\(escaped(curve.name))</text>\n"
        }
        return text
    }

    private func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ colour: String) -> String {
        "<line x1=\"\(digits(x1, 1))\" y1=\"\(digits(y1, 1))\" x2=\"\(digits(x2, 1))\" y2=\"\(digits(y2, 1))\" stroke=\"\(colour)\"/>\n"
    }
    /// 1, 10, 100, then in thousands.
    private func label(_ exponent: Int) -> String {
        guard exponent >= 0 else { return "0." + String(repeating: "0", count: -exponent - 1) + "1" }
        let units = ["", "k", "M", "G", "T", "P"]
        let unit = min(exponent / 3, units.count - 1)
        return "1" + String(repeating: "0", count: exponent - unit * 3) + units[unit]
    }
    private func escaped(_ text: String) -> String {
        String(text.flatMap { $0 == "&" ? "&amp;" : $0 == "<" ? "&lt;" : $0 == ">" ? "&gt;" : String($0) })
    }
}

extension LogPlot {
    /// Panels in rows of two, as one document.
    static func document(_ title: String, _ panels: [LogPlot]) -> String {
        let cell = (width: margins.left + width + 30, height: margins.top + height + margins.bottom)
        let columns = min(2, max(1, panels.count))
        let rows = (panels.count + columns - 1) / columns
        let size = (width: cell.width * Double(columns) + 20, height: cell.height * Double(rows) + 40)
        var text = """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(digits(size.width, 0))" height="\(digits(size.height, 0))" font-family="sans-serif" font-size="12">
            <rect width="100%" height="100%" fill="white"/>
            <text x="20" y="22" font-size="15">\(title)</text>

            """
        for (index, panel) in panels.enumerated() {
            let at = (x: 10 + Double(index % columns) * cell.width, y: 34 + Double(index / columns) * cell.height)
            text += "<g transform=\"translate(\(digits(at.x, 1)) \(digits(at.y, 1)))\">\n\(panel.svg)</g>\n"
        }
        return text + "</svg>\n"
    }
}
