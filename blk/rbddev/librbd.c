//go:build ceph && cgo

#include "librbd.h"
#include "_cgo_export.h"

int udm_start(rbd_image_t image, int op, uint64_t off, uint64_t len, const struct iovec *iov, int n, uintptr_t slot)
{
	rbd_completion_t c;
	int r = rbd_aio_create_completion((void *)slot, NULL, &c);
	if (r < 0)
		return r;
	switch (op) {
	case udm_read:
		r = rbd_aio_readv(image, iov, n, off, c);
		break;
	case udm_write:
		r = rbd_aio_writev(image, iov, n, off, c);
		break;
	case udm_flush:
		r = rbd_aio_flush(image, c);
		break;
	case udm_discard:
		r = rbd_aio_discard(image, off, len, c);
		break;
	case udm_zero:
		r = rbd_aio_write_zeroes(image, off, len, c, 0, 0);
		break;
	case udm_zero_thick:
		r = rbd_aio_write_zeroes(image, off, len, c, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
		break;
	}
	if (r < 0)
		rbd_aio_release(c);
	return r;
}

int udm_reap(rbd_image_t image, struct udm_ended *ended, int room)
{
	rbd_completion_t c[room];
	int n = rbd_poll_io_events(image, c, room);
	for (int i = 0; i < n; i++) {
		ended[i].slot = (uintptr_t)rbd_aio_get_arg(c[i]);
		ended[i].result = rbd_aio_get_return_value(c[i]);
		rbd_aio_release(c[i]);
	}
	return n;
}

static void changed(void *handle)
{
	rbdChanged((uintptr_t)handle);
}

int udm_watch(rbd_image_t image, uint64_t *watch, uintptr_t handle)
{
	return rbd_update_watch(image, watch, changed, (void *)handle);
}

static int allocated(uint64_t off, size_t n, int exists, void *handle)
{
	return exists ? rbdAllocated((uintptr_t)handle, off, n) : 0;
}

int udm_diff(rbd_image_t image, uint64_t off, uint64_t len, uintptr_t handle)
{
	return rbd_diff_iterate2(image, NULL, off, len, 1, 0, allocated, (void *)handle);
}
