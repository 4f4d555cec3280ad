// How a mount begins and ends, and that it goes on when its workers are many, busy, or stuck.

import CFosWire
import CFuse
import CMockInstance
import Glibc
import Synchronization
import Testing

@testable import FuseMount

private let slowLookupIsOver = Mutex(false)

extension MountTests {
    @Suite struct Life {
        @Test func mountTableNamesTheInstance() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let table = try #require(contents("/proc/self/mounts"))
            let line = try #require(table.split(separator: "\n").first { $0.contains(scratch.path) })
            let words = line.split(separator: " ")
            #expect(words[0] == "fos:te,st")
            #expect(words[2] == "fuse.fos")
            #expect(words[3].contains("default_permissions"))
        }

        @Test func unmountFromOutsideEndsTheMount() throws {
            let scratch = try Scratch()
            #expect(store(scratch.path + "/a", "x") == 0)
            let held = open(scratch.path + "/a", O_RDONLY)
            #expect(scratch.mount.unmount(lazy: false) == EBUSY)
            close(held)
            #expect(scratch.mount.unmount(lazy: false) == 0)
            for _ in 0..<1000 where scratch.mount.workerCount != 0 { usleep(1000) }
            #expect(scratch.mount.workerCount == 0)
            scratch.finish()
        }

        /// A detached mount lives on while a file of it is open; what lies on its path by then is not its to unmount.
        @Test(.enabled(if: geteuid() == 0)) func aMountInItsPlaceIsLeftAlone() throws {
            let scratch = try Scratch()
            #expect(store(scratch.path + "/a", "x") == 0)
            let held = open(scratch.path + "/a", O_RDONLY)
            #expect(scratch.mount.unmount(lazy: true) == 0)
            #expect(scratch.mount.unmount(lazy: true) == EINVAL)
            #expect(mount("other", scratch.path, "tmpfs", 0, nil) == 0)
            #expect(scratch.mount.unmount(lazy: true) == EINVAL)
            scratch.mount.stop()
            close(held)
            #expect(umount2(scratch.path, 0) == 0, "the other mount is gone")
            scratch.finish()
        }

        @Test func whatIsSaidOnStandardErrorIsGathered() {
            let (result, lines) = ErrorOutput.gathered {
                write(STDERR_FILENO, "one\ntwo\n", 8)
            }
            #expect(result == 8 && lines == ["one", "two"])
            #expect(ErrorOutput.gathered {}.lines == [])
        }

        @Test func stopWithAnOpenFileEndsToo() throws {
            let scratch = try Scratch()
            #expect(store(scratch.path + "/a", "x") == 0)
            let held = open(scratch.path + "/a", O_RDONLY)
            scratch.finish()
            var byte: UInt8 = 0
            #expect(pread(held, &byte, 1, 4096) <= 0)
            close(held)
        }

        @Test func badMountPointsGiveOneLine() throws {
            let files = IntrospectionFiles(names: []) { _ in nil }
            for (path, words) in [("/nonexistent/dir", "No such file"), ("/etc/passwd", "Not a directory")] {
                let mount = FuseMount(FuseMount.Configuration(mountPoint: path, source: "fos:x", introspection: files) { _ in }) {}
                let mock = UnsafeMutablePointer<mock_instance>.allocate(capacity: 1)
                mock_start(mock, UInt32(FrontEndLimits.channels), -1, answerScripted)
                mock_run(mock)
                let error = #expect(throws: FuseMountError.self) { try mount.start(socket: mock.pointee.client_socket) }
                #expect(error?.description.contains(words) == true)
                mock_stop(mock)
                mock.deallocate()
            }
        }

        /// A stop returns when all is over, also if another thread has begun it.
        @Test func everyStopWaitsForTheEnd() throws {
            let scratch = try Scratch()
            scripted.withLock {
                $0.beforeLookup = { state, name in
                    guard name == "slow" else { return nil }
                    usleep(500_000)
                    slowLookupIsOver.withLock { $0 = true }
                    return fos_notice()
                }
            }
            _ = try run("stat \(scratch.path)/slow >/dev/null 2>&1 & echo")
            usleep(200_000)
            var thread = pthread_t()
            let mount = Unmanaged.passRetained(scratch.mount)
            pthread_create(&thread, nil, { argument in
                Unmanaged<FuseMount>.fromOpaque(argument!).takeRetainedValue().stop()
                return nil
            }, mount.toOpaque())
            usleep(100_000)
            scratch.mount.stop()
            #expect(slowLookupIsOver.withLock { $0 })
            pthread_join(thread, nil)
            scratch.finish()
        }

        /// Thirty readers that all meet a transaction, which ends only when a write is served: the write is served.
        @Test func stuckWorkersAreJoinedByOthers() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let file = scratch.path + "/a"
            #expect(store(file, String(repeating: "x", count: 200_000)) == 0)
            #expect(store(scratch.path + "/b", "") == 0)
            #expect(store("/proc/sys/vm/drop_caches", "1", flags: O_WRONLY) == 0)
            scripted.withLock { $0.readsWaitForWrite = true }
            let output = try run("""
                for i in $(seq 30); do dd if=\(file) of=/dev/null bs=4096 count=1 skip=$i iflag=direct status=none || echo failed & done
                sleep 0.3; echo written > \(scratch.path)/b; wait; cat \(scratch.path)/b
                """)
            #expect(output == "written\n")
            // Those that were added have left, or leave with the next requests.
            for _ in 0..<200 { _ = contents(scratch.path + "/.fos/names") }
            #expect(scratch.mount.workerCount <= 35)
        }

        @Test func manyProgramsAtOnce() throws {
            let scratch = try Scratch()
            defer { scratch.finish() }
            let path = scratch.path
            var threads: [pthread_t] = []
            for index in 0..<8 {
                let job = UnsafeMutablePointer<(String, Int)>.allocate(capacity: 1)
                job.initialize(to: (path, index))
                var thread = pthread_t()
                pthread_create(&thread, nil, { argument in
                    let job = argument!.assumingMemoryBound(to: (String, Int).self)
                    for round in 0..<50 {
                        let file = "\(job.pointee.0)/t\(job.pointee.1)-\(round)"
                        guard store(file, "text \(round)") == 0, contents(file) == "text \(round)", unlink(file) == 0 else { return nil }
                    }
                    let done = UnsafeMutableRawPointer(bitPattern: 1)
                    job.deinitialize(count: 1)
                    job.deallocate()
                    return done
                }, job)
                threads.append(thread)
            }
            for thread in threads {
                var result: UnsafeMutableRawPointer?
                pthread_join(thread, &result)
                #expect(result != nil)
            }
            #expect(scripted.withLock { $0.entries.isEmpty })
        }
    }
}
