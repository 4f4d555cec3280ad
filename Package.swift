// swift-tools-version: 6.2
// fos: a factored operating system. Layers, lowest first; an arrow only ever points down (docs/architecture.md).
import PackageDescription

/// Warnings are errors everywhere; a hot path that regresses to a warning is a regression.
let strict: [SwiftSetting] = [.treatAllWarnings(as: .error)]
/// Servers are generic over their kernel, and live in other modules than the kernels. Only with optimisation across modules does a
/// release build have one specialised for the kernel that it runs on; without it each field and each call goes by tables. (Swift 6.3.1
/// does not compile all modules so.)
let hot: [SwiftSetting] = strict + [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))]
let c: [CSetting] = [.unsafeFlags(["-std=gnu17", "-Wall", "-Wextra", "-Werror"])]

let package = Package(
    name: "fos",
    products: [.executable(name: "fos", targets: ["fos"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // Layer 0: the wire, as C headers; the system libraries; what the command needs of C.
        .target(name: "CFosWire", cSettings: c),
        .systemLibrary(name: "CFuse", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .systemLibrary(name: "CHwloc", pkgConfig: "hwloc", providers: [.apt(["libhwloc-dev"])]),
        .systemLibrary(name: "CCapstone", pkgConfig: "capstone", providers: [.apt(["libcapstone-dev"])]),
        .target(name: "CCommand", cSettings: c),
        // Layer 1: C that includes the wire; mailboxes, message views, the Kernel and Server interfaces.
        .target(name: "CPlatform", dependencies: ["CFosWire"], cSettings: c),
        .target(name: "CFosProxy", dependencies: ["CFosWire"], path: "shim/proxy", cSettings: c),
        .target(name: "CSyscallSites", dependencies: ["CFosWire", "CCapstone"], cSettings: c),
        .target(name: "Messaging", dependencies: ["CFosWire"], swiftSettings: hot),
        .target(name: "Buddy", swiftSettings: strict),
        // Layer 2: what fleets share; what a file server's state is made of; the command's parts that need no server.
        .target(name: "Fleet", dependencies: ["Messaging", "CFosWire"], swiftSettings: hot),
        .target(name: "FileStorage", dependencies: ["Buddy", "Messaging"], swiftSettings: hot),
        .target(name: "FosCommand", dependencies: ["CCommand", "CFosProxy", "CSyscallSites", "CFosWire"], swiftSettings: strict),
        // Layer 3: one pure module a service.
        .target(name: "NameService", dependencies: ["Messaging", "Fleet", "CFosWire"], swiftSettings: strict),
        .target(name: "PrivilegeService", dependencies: ["Messaging", "Fleet", "CFosWire"], swiftSettings: strict),
        .target(name: "PlacementService", dependencies: ["Messaging", "Fleet", "CFosWire"], swiftSettings: strict),
        .target(name: "MemoryService", dependencies: ["Buddy", "Fleet", "Messaging", "CFosWire", "CPlatform"], swiftSettings: strict),
        .target(name: "FileService", dependencies: ["FileStorage", "Fleet", "Messaging", "CFosWire"], swiftSettings: hot),
        // Layer 4: the live host, and the simulated one.
        .target(name: "Microkernel", dependencies: ["Messaging", "CFosWire", "CPlatform", "CHwloc"], swiftSettings: hot),
        .target(name: "Simulator", dependencies: ["Messaging", "CFosWire"], swiftSettings: strict),
        // Layer 5: the FUSE front end over the message proxy library.
        .target(name: "FuseMount", dependencies: ["CFosProxy", "CFosWire", "CFuse", "CPlatform"], swiftSettings: strict),
        // Layer 6: putting together, and what is measured with it.
        .target(
            name: "Instance",
            dependencies: [
                "Microkernel", "NameService", "PrivilegeService", "FileService", "MemoryService", "PlacementService", "Fleet", "FuseMount",
                "Messaging", "FosCommand", "CFosWire", "CPlatform", .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),
        .target(
            name: "Simulation",
            dependencies: [
                "Simulator", "NameService", "FileService", "FileStorage", "MemoryService", "PlacementService", "Fleet", "Messaging",
                "FosCommand", "CFosWire", "CPlatform", "CHwloc",
            ], swiftSettings: strict),
        .target(name: "PageStudy", dependencies: ["FosCommand", "CFosProxy", "CFosWire", "CPlatform"], swiftSettings: strict),
        // Layer 7: a study on the simulated machine.
        .target(
            name: "ScaleStudy",
            dependencies: [
                "Simulation", "Simulator", "FileService", "MemoryService", "PlacementService", "Fleet", "Messaging", "FosCommand",
                "CFosWire",
            ], swiftSettings: strict),
        // Layer 8: the command.
        .executableTarget(
            name: "fos",
            dependencies: [
                "FosCommand", "Instance", "PageStudy", "ScaleStudy", "Simulation", "Simulator", "CCommand", "CFosWire", "CPlatform",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),
        // Tests: units beside each module, the contract suite, hostile clients.
        .target(name: "LoopKernel", dependencies: ["Messaging", "CFosWire"], path: "Tests/LoopKernel", swiftSettings: strict),
        .testTarget(name: "MessagingTests", dependencies: ["Messaging", "LoopKernel", "CFosWire"]),
        .testTarget(name: "BuddyTests", dependencies: ["Buddy"]),
        .testTarget(name: "MemoryServiceTests", dependencies: ["MemoryService", "LoopKernel", "Messaging", "CFosWire", "CPlatform"]),
        .testTarget(name: "FleetTests", dependencies: ["Fleet", "Messaging", "CFosWire"]),
        .testTarget(name: "NameServiceTests", dependencies: ["NameService", "Fleet", "LoopKernel", "Messaging", "CFosWire"]),
        .testTarget(name: "PlacementServiceTests", dependencies: ["PlacementService", "Fleet", "Messaging", "CFosWire"]),
        .testTarget(name: "PrivilegeServiceTests", dependencies: ["PrivilegeService", "LoopKernel", "Messaging", "CFosWire"]),
        .testTarget(name: "FileStorageTests", dependencies: ["FileStorage", "Messaging"]),
        .testTarget(
            name: "FileServiceTests",
            dependencies: [
                "FileService", "FileStorage", "MemoryService", "Fleet", "PlacementService", "LoopKernel", "Messaging", "CFosProxy",
                "CFosWire", "CAllocationCounter",
            ]),
        .testTarget(name: "SimulatorTests", dependencies: ["Simulator", "Messaging", "CFosWire"]),
        .testTarget(name: "SimulationTests", dependencies: ["Simulation", "Simulator", "FileService", "Messaging", "CFosWire"]),
        .testTarget(name: "ScaleStudyTests", dependencies: ["ScaleStudy", "FosCommand"]),
        .target(name: "CAllocationCounter", path: "Tests/AllocationCounter", cSettings: c),
        .testTarget(
            name: "MicrokernelTests",
            dependencies: ["Microkernel", "Messaging", "CFosProxy", "CFosWire", "CPlatform", "CAllocationCounter"]),
        .target(
            name: "CMockInstance", dependencies: ["CFosWire"], path: "shim/tests", sources: ["mock_instance.c"], publicHeadersPath: ".",
            cSettings: c),
        .testTarget(
            name: "FuseMountTests", dependencies: ["FuseMount", "CMockInstance", "CFosProxy", "CFosWire", "CFuse"],
            swiftSettings: strict),
        .testTarget(name: "FosCommandTests", dependencies: ["FosCommand", "CCommand", "CSyscallSites", "CFosWire"]),
        .testTarget(name: "PageStudyTests", dependencies: ["PageStudy"]),
        .testTarget(name: "InstanceTests", dependencies: ["Instance"]),
        .target(name: "CContractSupport", path: "Tests/ContractSupport", cSettings: c),
        .testTarget(
            name: "ContractTests",
            dependencies: [
                "Instance", "FosCommand", "FileService", "LoopKernel", "Messaging", "CFosProxy", "CFosWire", "CContractSupport", "fos",
            ]),
        // The processes that HostileTests starts: the helper here, and the command.
        .executableTarget(name: "fos-hostile", dependencies: ["CFosProxy", "CFosWire"], path: "Tests/HostileClient", cSettings: c),
        .testTarget(name: "HostileTests"),
    ]
)
