"""Random forks, execs, duplicates and closes around descriptors whose offsets are shared, one line for each step.

    offsets.py SEED STEPS       in an empty directory; what it prints must not depend on the file system
    offsets.py go-on SEED STEPS DEPTH DESCRIPTORS...

Each process that is made goes on with steps of its own on the descriptors that it has, while its maker waits, so that the
order of all steps is determined. Executed ones are sometimes started without the preloaded library.
"""
import errno, fcntl, os, random, sys

def say(*what): print('  ' * depth, *what, flush=True)

def attempt(work):
    try: return work()
    except OSError as error: return errno.errorcode[error.errno]

def step():
    global descriptors
    what = random.choice(['open', 'read', 'write', 'seek', 'tell', 'dup', 'dup2', 'close', 'pread', 'append', 'fork', 'exec', 'spawn', 'flock', 'truncate'])
    fd = random.choice(descriptors) if descriptors else -1
    if what == 'open' or fd < 0:
        flags = random.choice([os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDONLY])
        name = random.choice('abc')
        got = attempt(lambda: os.open(name, flags | os.O_CREAT, 0o644))
        if isinstance(got, int):
            os.set_inheritable(got, random.random() < 0.8)
            descriptors.append(got)
        say('open', name, flags, got)
    elif what == 'read': say('read', fd, attempt(lambda: os.read(fd, random.randrange(1, 50))))
    elif what == 'pread': say('pread', fd, attempt(lambda: os.pread(fd, 20, random.randrange(200))))
    elif what == 'write': say('write', fd, attempt(lambda: os.write(fd, random.randbytes(random.randrange(1, 30)).hex().encode())))
    elif what == 'append': say('setfl', fd, attempt(lambda: fcntl.fcntl(fd, fcntl.F_SETFL, random.choice([0, os.O_APPEND]))))
    elif what == 'seek': say('seek', fd, attempt(lambda: os.lseek(fd, random.randrange(300), os.SEEK_SET)))
    elif what == 'tell': say('tell', fd, attempt(lambda: (os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_size)))
    elif what == 'truncate': say('truncate', fd, attempt(lambda: os.ftruncate(fd, random.randrange(400))))
    elif what == 'flock': say('flock', fd, attempt(lambda: fcntl.flock(fd, random.choice([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN]) | fcntl.LOCK_NB)))
    elif what == 'dup':
        descriptors.append(os.dup(fd))
        os.set_inheritable(descriptors[-1], True)
        say('dup', fd, descriptors[-1])
    elif what == 'dup2':
        other = random.choice(descriptors)
        say('dup2', fd, other, os.dup2(fd, other))
    elif what == 'close':
        os.close(fd)
        descriptors = [one for one in descriptors if one != fd]
        say('close', fd)
    elif depth < 3: make(what)

def make(what):
    global depth, descriptors
    seed, steps, plain = random.randrange(1 << 30), random.randrange(3, 12), random.random() < 0.3
    environment = {k: v for k, v in os.environ.items() if not (plain and k == 'LD_PRELOAD')}
    inherited = [fd for fd in descriptors if os.get_inheritable(fd)]
    arguments = [sys.executable, __file__, 'go-on', str(seed), str(steps), str(depth + 1)] + [str(fd) for fd in inherited]
    say(what, inherited)
    if what == 'spawn': pid = os.posix_spawn(sys.executable, arguments, environment)
    else: pid = os.fork()
    if pid == 0:
        if what == 'exec': os.execve(sys.executable, arguments, environment)
        random.seed(seed)
        depth += 1
        for _ in range(steps): step()
        os._exit(0)
    say('ended', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

if sys.argv[1] == 'go-on':
    random.seed(int(sys.argv[2]))
    steps, depth, descriptors = int(sys.argv[3]), int(sys.argv[4]), [int(fd) for fd in sys.argv[5:]]
else:
    random.seed(int(sys.argv[1]))
    steps, depth, descriptors = int(sys.argv[2]), 0, []
for _ in range(steps): step()
if depth == 0:
    for name in 'abc': say(name, attempt(lambda: open(name, 'rb').read()))
