"""A file that a program under the shim and one without it have mapped and change. Prints what each sees of the other."""
import mmap, os, subprocess, sys

plain = ['env', '-u', 'LD_PRELOAD']
def run(*how): return subprocess.run(how, stdout=subprocess.PIPE, text=True).stdout.strip()

fd = os.open('m', os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, 8192)
other = os.open('m', os.O_RDWR)
with mmap.mmap(fd, 8192) as m:
    m[0:5] = b'first'
    print(open('m', 'rb').read(5), run(os.environ['STATIC'], 'head', '-c', '5', 'm'))
    for i in range(20):
        os.pwrite(other, b'%05d' % i, 4096)
        assert m[4096:4101] == b'%05d' % i, (i, m[4096:4101])
        m[100:105] = b'%05d' % i
        assert os.pread(other, 5, 100) == b'%05d' % i, i
    run('sh', '-c', 'printf shell | dd of=m bs=1 seek=10 conv=notrunc 2> /dev/null')
    print(m[10:15])
    run(*plain, 'sh', '-c', 'printf plain | dd of=m bs=1 seek=20 conv=notrunc 2> /dev/null')
    print(m[20:25])

# Grown by message while a program without the shim has mapped more than there was: it must see the new end.
script = '''
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
at = libc.mmap(None, 1 << 20, 3, 1, os.open("m", os.O_RDWR), 0)
ctypes.string_at(at, 10)
for _ in range(10):
    print("ready", flush=True)
    place = int(sys.stdin.readline())
    print(ctypes.string_at(at + place, 4), flush=True)
'''
child = subprocess.Popen(plain + [sys.executable, '-c', script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for i in range(10):
    assert child.stdout.readline() == 'ready\n'
    place = 20000 * (i + 1)
    os.pwrite(fd if i % 2 else other, b'%04d' % i, place)
    child.stdin.write('%d\n' % place)
    child.stdin.flush()
    print(child.stdout.readline().strip())
print(child.wait())
