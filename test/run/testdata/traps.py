# Traps of interception, seen from a program: each function is a test, and prints what is wrong.
import errno, fcntl, mmap, os, resource, select, signal, stat, struct, subprocess, sys

CONTROL, D = "/dev/mapper/control", "/dev/mapper/d"
WAIT, ARM = 0xC138FD08, 0xC138FD10


def sh(command, code=0):
    r = subprocess.run(command, shell=True, capture_output=True, text=True)
    if r.returncode != code:
        print(f"{command}: exit code {r.returncode}: {r.stdout}{r.stderr}")
    return r.stdout.strip()


def want(what, got, expected):
    if got != expected:
        print(f"{what}: {got}, want {expected}")


def fails(what, number, f, *args):
    try:
        r = f(*args)
        print(f"{what}: no error")
        return r
    except OSError as e:
        want(what, errno.errorcode[e.errno], errno.errorcode[number])


def call(name="", event=0):
    return bytearray(struct.pack("<III II II I I I Q 128s 129s 7x", 4, 0, 0, 312, 312, 0, 0, 0, event, 0, 0, name.encode(), b""))


def closed_is_closed():
    for i in range(10):
        sh("dmsetup create x --table '0 2048 linear /dev/sda 600000'")
        fd = os.open("/dev/mapper/x", os.O_RDWR)
        os.write(fd, b"x" * 4096)
        os.close(fd)
        sh("dmsetup remove x")


def open_counts():
    fd = os.open(D, os.O_RDONLY)
    want("open", sh("dmsetup info -c --noheadings -o open d"), "1")
    sh("dmsetup remove d", 1)
    os.close(fd)
    want("open after close", sh("dmsetup info -c --noheadings -o open d"), "0")


def exclusive():
    for path in (D, "/dev/sdb"):
        a = os.open(path, os.O_RDWR | os.O_EXCL)
        fails(path + ", second claim", errno.EBUSY, os.open, path, os.O_RDONLY | os.O_EXCL)
        os.close(os.open(path, os.O_RDWR))  # without a claim
        sh(f"dmsetup create over --table '0 8 linear {path} 0'", 1)
        b = os.dup(a)
        os.close(a)
        fails(path + ", claimed by a duplicate", errno.EBUSY, os.open, path, os.O_RDWR | os.O_EXCL)
        os.close(b)
        sh(f"dmsetup create over --table '0 8 linear {path} 0'")
        fails(path + ", used by a table", errno.EBUSY, os.open, path, os.O_RDONLY | os.O_EXCL)
        sh("dmsetup remove over")
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))


def one_inode():
    fd = os.open(D, os.O_RDONLY)
    os.symlink(D, "/dev/link")
    all = [os.stat(D), os.stat("/dev/dm-0"), os.fstat(fd), os.stat("/dev/link"), os.stat("dm-0", dir_fd=os.open("/dev", os.O_RDONLY))]
    want("identities", len({(s.st_dev, s.st_ino, s.st_rdev) for s in all}), 1)
    want("block device", stat.S_ISBLK(all[2].st_mode), True)
    want("link", os.readlink("/dev/link"), D)
    want("link itself", stat.S_ISLNK(os.lstat("/dev/link").st_mode), True)
    os.unlink("/dev/link")
    os.close(fd)


def descriptors():
    fd = os.open(D, os.O_RDONLY)
    want("close on exec", fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.FD_CLOEXEC)
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    fails("too many files", errno.EMFILE, os.open, D, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fails("a directory", errno.ENOTDIR, os.open, D, os.O_RDONLY | os.O_DIRECTORY)
    fails("is there", errno.EEXIST, os.open, D, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    fails("typing error", errno.EACCES, os.open, "/dev/mapper/dd", os.O_RDWR | os.O_CREAT)
    fails("not there", errno.ENOENT, os.open, "/dev/mapper/dd", os.O_RDWR)


def parameter():
    name = "/sys/module/dm_mirror/parameters/raid1_resync_throttle"
    for text, value in (("7", "7\n"), ("100\n", "100\n")):
        with open(name, "w") as f:
            f.write(text)
        want("parameter of the daemon", open(name).read(), value)


def renamed():
    fd = os.open(D, os.O_RDONLY)
    sh("dmsetup rename d e")
    size = bytearray(8)
    fcntl.ioctl(fd, 0x80081272, size)
    want("size under another name", struct.unpack("<Q", size)[0], 1 << 28)
    os.close(fd)
    sh("dmsetup rename e d")


def resized():
    fd = os.open(D, os.O_RDONLY)
    size = bytearray(8)
    for sectors in (1024, 1 << 19):
        sh(f"dmsetup reload d --table '0 {sectors} linear /dev/sda 2048'; dmsetup resume d")
        fcntl.ioctl(fd, 0x80081272, size)
        want("size of the new table", struct.unpack("<Q", size)[0], sectors * 512)
        want("size in /sys", open("/sys/block/dm-0/size").read(), f"{sectors}\n")
    os.close(fd)


def polled():
    fd = os.open(CONTROL, os.O_RDWR)
    p = select.poll()
    p.register(fd, select.POLLIN)
    want("nothing yet", p.poll(0), [])
    sh("dmsetup rename d e")
    want("an event", p.poll(10000), [(fd, select.POLLIN)])
    fcntl.ioctl(fd, ARM, call())
    want("armed", p.poll(0), [])
    sh("dmsetup rename e d")
    want("another event", p.poll(10000), [(fd, select.POLLIN)])
    want("control", os.fstat(fd).st_rdev, os.makedev(10, 236))
    os.close(fd)


def interrupted():
    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    fd = os.open(CONTROL, os.O_RDWR)
    now = int(sh("dmsetup info -c --noheadings -o events d"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        fcntl.ioctl(fd, WAIT, call("d", now))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("DEV_WAIT: no error")
    except Alarm:
        pass
    os.close(fd)
    sh(f"timeout 0.2 dmsetup wait d {now}", 124)
    sh("dmsetup info d")


def versions():
    fd = os.open(CONTROL, os.O_RDWR)
    b = call()
    b[0] = 5
    fails("another version", errno.EINVAL, fcntl.ioctl, fd, 0xC138FD00, b)
    want("the kernel's version", struct.unpack("<III", b[:12]), (4, 47, 0))
    fails("unknown command", errno.ENOTTY, fcntl.ioctl, fd, 0xC138FD63, call())
    null = os.open("/dev/null", os.O_RDWR)
    fails("not the control device", errno.ENOTTY, fcntl.ioctl, null, 0xC138FD00, call())
    fails("not a block device", errno.ENOTTY, fcntl.ioctl, null, 0x80081272, bytearray(8))


def hidden():
    want("modprobe", subprocess.run("modprobe dm-mod", shell=True, capture_output=True).returncode, 127)
    for name in os.listdir("/dev"):
        if stat.S_ISBLK(os.stat("/dev/" + name).st_mode) and name not in ("sda", "sdb", "dm-0"):
            print(f"/dev/{name} is seen")
    want("/sys/block", sorted(os.listdir("/sys/block")), ["dm-0", "sda", "sdb"])
    want("slaves", os.listdir("/sys/block/dm-0/slaves"), ["sda"])
    want("holders", os.listdir("/sys/block/sda/holders"), ["dm-0"])
    want("by number", os.path.basename(os.readlink("/sys/dev/block/" + open("/sys/block/sda/dev").read().strip())), "sda")


def no_right_needed():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    want("mlockall", libc.mlockall(1), 0)
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    os.chmod(D, 0o600)
    os.chown(D, 0, 0)
    fails("xattr", errno.EOPNOTSUPP, os.getxattr, D, "user.x")


def mapped():
    fd = os.open(D, os.O_RDWR)
    m = mmap.mmap(fd, 1 << 20)
    m[5:10] = b"hello"
    m.flush()
    want("written by mmap", os.pread(fd, 5, 5), b"hello")
    m.close()
    os.close(fd)


sh("dmsetup create d --table '0 524288 linear /dev/sda 2048'")
for test in sys.argv[1:]:
    globals()[test]()
sh("dmsetup remove d")
