# Prints the cost of system calls in microseconds: name, median, 10th percentile.
import ctypes, fcntl, os, time


def cost(name, call, n=2000):
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    times.sort()
    print(name, times[n // 2] / 1000, times[n // 10] / 1000)


libc, page, out = ctypes.CDLL(None), ctypes.create_string_buffer(4096), bytearray(8)
mapped, disk = os.open("/dev/mapper/d", os.O_RDONLY), os.open("/dev/sda", os.O_RDONLY)
cost("getppid", os.getppid)
cost("mlock", lambda: libc.mlock(page, 1))
cost("stat-other", lambda: os.stat("/etc/passwd"))
cost("stat-device", lambda: os.stat("/dev/mapper/d"))
cost("open-other", lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)))
cost("open-disk", lambda: os.close(os.open("/dev/sda", os.O_RDONLY)), 500)
cost("open-mapped", lambda: os.close(os.open("/dev/mapper/d", os.O_RDONLY)), 300)
cost("BLKSSZGET-disk", lambda: fcntl.ioctl(disk, 0x1268, out))
cost("BLKSSZGET-mapped", lambda: fcntl.ioctl(mapped, 0x1268, out))
