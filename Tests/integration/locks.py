"""Says what file locks do, one line a fact: record locks of processes and of descriptions, flock, and how they end.

Run in an empty directory; what it prints must not depend on the file system, nor on which of its processes go by message.
A probe is another process that tries to lock: with PROBE=mount it is started without a preloaded library, so that it
reaches the file through the mount.
"""
import fcntl, os, signal, struct, subprocess, sys, time

PROBE = '''
import fcntl, os, sys
kind, exclusive, start = sys.argv[1], sys.argv[2] == "x", int(sys.argv[3])
fd = os.open(sys.argv[4], os.O_RDWR)
try:
    if kind == "flock": fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    else: fcntl.lockf(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB, 10, start)
    print("free")
except OSError as error: print("held", error.errno == 11)
'''
environment = dict(os.environ)
if environment.get('PROBE') == 'mount': environment.pop('LD_PRELOAD', None)

def probe(kind, exclusive=True, start=0, name='f'):
    arguments = [sys.executable, '-c', PROBE, kind, 'x' if exclusive else 's', str(start), name]
    return subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, text=True).stdout.strip()

def record(fd, command, kind, start=0, length=10):
    """An fcntl record lock; for a question, the answer's type."""
    asked = fcntl.fcntl(fd, command, struct.pack('hhqqi4x', kind, 0, start, length, 0))
    return struct.unpack('hhqqi4x', asked)[0]

def child(work):
    """Runs `work` in a forked child and returns what it returned, a small number."""
    pid = os.fork()
    if pid == 0: os._exit(work() & 127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def attempt(work):
    try: return work()
    except OSError as error: return error.strerror

OFD_GETLK, OFD_SETLK = 36, 37
fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b'x' * 1000)

fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
print('record lock:', probe('record'), probe('record', start=50), probe('record', False))
os.write(fd, b'written under the lock')
print('data:', os.pread(fd, 40, 990), os.lseek(fd, 0, os.SEEK_CUR))
fcntl.lockf(fd, fcntl.LOCK_SH, 10, 0)
print('shared:', probe('record'), probe('record', False))
fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)
print('unlocked:', probe('record'))

fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
again = os.open('f', os.O_RDONLY)
print('before another descriptor is closed:', probe('record'))
os.close(again)
print('after:', probe('record'))

fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
copy = os.dup(fd)
os.close(copy)
print('after a duplicate is closed:', probe('record'))
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
os.dup2(os.open('other', os.O_CREAT | os.O_RDWR), fd)
print('after it is replaced:', probe('record'))
fd = os.open('f', os.O_RDWR)

fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
print('a child asks:', child(lambda: 1 if attempt(lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)) else 0))
print('a child closes, still', child(lambda: os.close(fd) or 0), probe('record'))
os.lseek(fd, 100, os.SEEK_SET)
print('a child reads on:', child(lambda: len(os.read(fd, 30))), os.lseek(fd, 0, os.SEEK_CUR))
os.close(fd)
print('closed:', probe('record'))

fd = os.open('f', os.O_RDONLY)
print('exclusive through a descriptor for reading:', attempt(lambda: fcntl.lockf(fd, fcntl.LOCK_EX)))
os.close(fd)

one, two = os.open('f', os.O_RDWR), os.open('f', os.O_RDWR)
record(one, OFD_SETLK, fcntl.F_WRLCK)
print('of a description:', attempt(lambda: record(two, OFD_SETLK, fcntl.F_WRLCK)), record(two, OFD_GETLK, fcntl.F_WRLCK))
duplicate = os.dup(one)
os.close(one)
print('kept by a duplicate:', attempt(lambda: record(two, OFD_SETLK, fcntl.F_WRLCK)))
os.close(duplicate)
print('ended with the last:', attempt(lambda: record(two, OFD_SETLK, fcntl.F_WRLCK)))
os.close(two)

one, two = os.open('f', os.O_RDWR), os.open('f', os.O_RDWR)
fcntl.flock(one, fcntl.LOCK_EX)
print('flock:', attempt(lambda: fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)), probe('flock'), probe('record'))
os.write(one, b'under flock')
os.write(one, b', and on')
print('data:', os.pread(two, 30, 0), os.lseek(one, 0, os.SEEK_CUR))
print('a child shares it:', child(lambda: 1 if attempt(lambda: fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)) else 0))
duplicate = os.dup(one)
os.close(one)
print('kept by a duplicate:', probe('flock'))
os.set_inheritable(duplicate, True)
script = 'import os, sys; sys.stdout.write(str(os.lseek(%d, 0, 1)) + " "); sys.stdout.flush(); os.write(%d, b"!")' % (duplicate, duplicate)
print('an executed program has it:', subprocess.run([sys.executable, '-c', script], pass_fds=[duplicate], stdout=subprocess.PIPE, text=True).stdout,
      os.lseek(duplicate, 0, os.SEEK_CUR), probe('flock'))
os.close(duplicate)
print('ended:', probe('flock'), attempt(lambda: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)))
os.close(two)

# A lock that is waited for, and a wait that a signal ends.
fd = os.open('f', os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    def stop(*_): raise TimeoutError
    signal.signal(signal.SIGALRM, stop)
    mine = os.open('f', os.O_RDWR)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try: fcntl.lockf(mine, fcntl.LOCK_EX, 10, 0)
    except TimeoutError: os.write(writer, b'interrupted ')
    os.write(writer, b'waits ')
    fcntl.lockf(mine, fcntl.LOCK_EX, 10, 0)
    os.write(writer, b'has it')
    os._exit(0)
os.close(writer)
said = os.read(reader, 100)
while not said.endswith(b'waits '): said += os.read(reader, 100)
time.sleep(0.2)
fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)
os.waitpid(pid, 0)
print('waiting:', said + os.read(reader, 100))

# A file without a name, and one that its owner may no longer open.
os.unlink('f')
print('unlinked:', attempt(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)), os.pread(fd, 5, 0))
os.close(fd)

# An exec keeps record locks of the process.
fd = os.open('g', os.O_RDWR | os.O_CREAT, 0o644)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
os.set_inheritable(fd, True)
sys.stdout.flush()
os.execv(sys.executable, [sys.executable, '-c',
    'import os, subprocess, sys\nprint("after exec:", subprocess.run([sys.executable, "-c", %r, "record", "x", "0", "g"], stdout=subprocess.PIPE, text=True).stdout.strip())' % PROBE])
