// The figure of the study: a panel for each workload, with perfect scaling and the single server in it.

extension StudyReport {
    /// A whole SVG document.
    public var svg: String {
        LogPlot.document("fos on a simulated mesh: operations a second against cores", study.workloads.map(panel))
    }

    private func panel(_ workload: Workload) -> LogPlot {
        func points(_ curve: [Figures]) -> [(x: Double, y: Double)] { curve.map { (x: Double($0.point.cores), y: $0.throughput) } }
        let fleet = curve(workload)
        var curves: [LogPlot.Curve] = []
        if let base = bases[workload] {
            curves.append(
                LogPlot.Curve(
                    name: "perfect scaling", colour: "#999999", isDashed: true, hasMarks: false,
                    points: fleet.map { (x: Double($0.point.cores), y: base * Double($0.point.clients)) }))
        }
        curves.append(LogPlot.Curve(name: "fos", colour: "#4477aa", points: points(fleet)))
        let whole = curve(workload, shards: false)
        if !whole.isEmpty { curves.append(LogPlot.Curve(name: "fos, directory not sharded", colour: "#ccbb44", points: points(whole))) }
        curves.append(
            LogPlot.Curve(name: "one server for all (a lock)", colour: "#ee6677", points: points(curve(workload, isSingleServer: true))))
        return LogPlot(title: workload.title, xLabel: "cores", yLabel: "operations a second", curves: curves)
    }
}
