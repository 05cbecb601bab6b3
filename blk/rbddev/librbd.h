// The calls of librbd that Go makes for each request and each answer, one C call for each,
// and the callbacks.
#pragma once

#include <rados/librados.h>
#include <rbd/librbd.h>
#include <sys/uio.h>

enum { udm_read, udm_write, udm_flush, udm_discard, udm_zero, udm_zero_thick };

// udm_ended is a completion that was fetched.
struct udm_ended {
	uintptr_t slot;
	int64_t result;
};

int udm_start(rbd_image_t image, int op, uint64_t off, uint64_t len, const struct iovec *iov, int n, uintptr_t slot);
int udm_reap(rbd_image_t image, struct udm_ended *ended, int room);
int udm_watch(rbd_image_t image, uint64_t *watch, uintptr_t handle);
int udm_diff(rbd_image_t image, uint64_t off, uint64_t len, uintptr_t handle);
