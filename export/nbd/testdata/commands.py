# Every command and every error, by libnbd. structured and socket are set by
# whoever runs this.
import errno

M = 1024 * 1024
h.set_strict_mode(0)  # let libnbd send what is wrong
h.set_request_structured_replies(structured)
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_export_name("disk")
h.set_handshake_flags(nbd.HANDSHAKE_FLAG_MASK)
h.connect_unix(socket)

assert h.get_size() == 16 * M
assert h.get_structured_replies_negotiated() == structured
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION) == structured
assert h.can_df() == structured
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 * M


def fails(want, f, *args, **kw):
    try:
        f(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == want, (e.errnum, want, f, args)
        return
    assert False, ("no error", f, args)


data = bytes(range(256)) * 16
h.pwrite(data, 4096)
assert h.pread(4096, 4096) == data
h.pwrite(data, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(8192, 4096) == data + data
h.flush()
h.cache(8192, 4096)
h.trim(4096, 4096)
h.trim(4096, 4096, nbd.CMD_FLAG_FUA)
h.zero(4096, 8192)
assert h.pread(4096, 8192) == bytes(4096)
h.pwrite(data, 8192)
h.zero(4096, 8192, nbd.CMD_FLAG_FAST_ZERO)
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == bytes(4096)

fails(errno.EINVAL, h.pread, 512, 16 * M)
fails(errno.EINVAL, h.pread, 1024, 16 * M - 512)
fails(errno.EINVAL, h.pread, 2, 16 * M - 1)
old = h.pread(1024, 0)  # what is not aligned is served, too
assert h.pread(100, 0) == old[:100] and h.pread(512, 7) == old[7:519]
fails(errno.EINVAL, h.pread, 0, 0)
fails(errno.ENOSPC, h.pwrite, data, 16 * M)
h.pwrite(b"odd", 511)
assert h.pread(1024, 0) == old[:511] + b"odd" + old[514:]
h.pwrite(old, 0)
fails(errno.EINVAL, h.pwrite, b"", 0)
fails(errno.EINVAL, h.trim, 512, 16 * M)
fails(errno.ENOSPC, h.zero, 512, 16 * M)
fails(errno.EINVAL, h.cache, 512, 16 * M)
fails(errno.EINVAL, h.pwrite, data, 0, nbd.CMD_FLAG_DF)
fails(errno.EINVAL, h.trim, 512, 0, nbd.CMD_FLAG_NO_HOLE)
fails(errno.EINVAL, h.flush, nbd.CMD_FLAG_REQ_ONE)

seen = []


def extent(name, offset, entries, err):
    seen.append((name, offset, entries))


def chunk(buf, offset, status, err):
    seen.append((len(buf), offset, status))


if structured:
    h.block_status(16 * M, 0, extent)
    assert len(seen) == 1 and seen[0][0] == "base:allocation" and sum(seen[0][2][::2]) == 16 * M, seen
    seen.clear()
    h.block_status(16 * M, 0, extent, nbd.CMD_FLAG_REQ_ONE)
    assert len(seen) == 1 and len(seen[0][2]) == 2, seen
    seen.clear()
    fails(errno.EINVAL, h.block_status, 512, 16 * M, extent)
    seen.clear()
    h.pread_structured(256 * 1024, 1024 * 1024, chunk)
    assert (65536, 1024 * 1024, nbd.READ_DATA) in seen, seen
    assert (196608, 1024 * 1024 + 65536, nbd.READ_HOLE) in seen, seen
    seen.clear()
    h.pread_structured(256 * 1024, 1024 * 1024, chunk, nbd.CMD_FLAG_DF)
    assert seen == [(256 * 1024, 1024 * 1024, nbd.READ_DATA)], seen
else:
    fails(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_DF)

# Many in flight, of all sizes.
cookies = [h.aio_pread(nbd.Buffer(512 << (i % 12)), 512 * i) for i in range(200)]
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]

assert h.pread(4096, 0) == bytes(4096)
h.shutdown()
print("all good")
