@main struct Fos { static func main() {} }
