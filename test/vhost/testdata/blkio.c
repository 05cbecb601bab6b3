/* Verified I/O by libblkio: blkio SOCKET REQUESTS SEED.
 *
 * Two queues have 64 requests under way, whose buffers are in regions of memory that are removed
 * and added all the time. A block says which it is and how often it was written. */
#include <blkio.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCK = 4096, BLOCKS = 2048, DEPTH = 64, QUEUES = 2, RUN = 4, REGIONS = 8, SLOTS = 16, LIFE = 200 };
enum kind { READ, WRITE, ZERO, FLUSH };

struct region {
	struct blkio_mem_region mem;
	int used, left; /* requests under way, and how many more before it is replaced */
};

struct request {
	struct region *region;
	enum kind kind;
	int busy, first, n, queue;
	char *buf;
	struct iovec parts[2]; /* kept until the end of the request, as libblkio wants */
};

static struct blkio *disk;
static struct region regions[REGIONS];
static struct request requests[DEPTH];
static char taken[REGIONS][SLOTS];
static unsigned written[BLOCKS];
static char locked[BLOCKS];
static int replaced, counts[4], waiting[QUEUES];

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, blkio_get_error_msg());
	exit(1);
}

static unsigned long long state;
static int draw(int n)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (int)((state >> 33) % n);
}

static unsigned long long word(int block, int i)
{
	return written[block] ? (unsigned long long)written[block] << 32 | block << 12 | i : 0;
}

static void add_region(struct region *r)
{
	if (blkio_alloc_mem_region(disk, &r->mem, SLOTS * RUN * BLOCK) || blkio_map_mem_region(disk, &r->mem))
		die("add a region");
	r->left = LIFE / 2 + draw(LIFE);
}

static void replace_region(struct region *r)
{
	blkio_unmap_mem_region(disk, &r->mem);
	blkio_free_mem_region(disk, &r->mem);
	add_region(r);
	replaced++;
}

/* A buffer in any region that takes requests. */
static void take_buffer(struct request *q)
{
	for (;;) {
		int r = draw(REGIONS), s = draw(SLOTS);
		if (regions[r].left == 0 || taken[r][s])
			continue;
		taken[r][s] = 1;
		q->region = &regions[r];
		q->region->used++;
		q->region->left--;
		q->buf = (char *)q->region->mem.addr + s * RUN * BLOCK;
		return;
	}
}

static void give_buffer(struct request *q)
{
	struct region *r = q->region;
	taken[r - regions][(q->buf - (char *)r->mem.addr) / (RUN * BLOCK)] = 0;
	if (--r->used == 0 && r->left == 0)
		replace_region(r);
}

/* Blocks that no other request uses. */
static void take_blocks(struct request *q)
{
	for (;;) {
		int i = 0;
		q->n = 1 + draw(RUN);
		q->first = draw(BLOCKS - q->n + 1);
		while (i < q->n && !locked[q->first + i])
			i++;
		if (i == q->n)
			break;
	}
	memset(locked + q->first, 1, q->n);
}

static void fill(struct request *q)
{
	for (int i = 0; i < q->n; i++) {
		written[q->first + i]++;
		for (int j = 0; j < BLOCK; j += 8)
			*(unsigned long long *)(q->buf + i * BLOCK + j) = word(q->first + i, j);
	}
}

static void compare(struct request *q)
{
	for (int i = 0; i < q->n; i++)
		for (int j = 0; j < BLOCK; j += 8) {
			unsigned long long got = *(unsigned long long *)(q->buf + i * BLOCK + j), want = word(q->first + i, j);
			if (got != want) {
				fprintf(stderr, "block %d, byte %d: %llx instead of %llx\n", q->first + i, j, got, want);
				exit(1);
			}
		}
}

static void begin(struct request *q)
{
	int kind = draw(16);
	struct blkioq *to = blkio_get_queue(disk, q->queue);
	size_t cut = 512 * (1 + draw(7));
	q->kind = kind == 0 ? FLUSH : kind == 1 ? ZERO : kind < 8 ? WRITE : READ;
	q->busy = 1;
	counts[q->kind]++;
	waiting[q->queue]++;
	if (q->kind == FLUSH) {
		blkioq_flush(to, q, 0);
		return;
	}
	take_blocks(q);
	unsigned long long at = (unsigned long long)q->first * BLOCK, len = (unsigned long long)q->n * BLOCK;
	if (q->kind == ZERO) {
		memset(written + q->first, 0, q->n * sizeof *written);
		blkioq_write_zeroes(to, at, len, q, draw(2) ? BLKIO_REQ_NO_UNMAP : 0);
		return;
	}
	take_buffer(q);
	q->parts[0] = (struct iovec){ q->buf, cut };
	q->parts[1] = (struct iovec){ q->buf + cut, len - cut };
	if (q->kind == WRITE) {
		fill(q);
		blkioq_writev(to, at, q->parts, 2, q, draw(8) ? 0 : BLKIO_REQ_FUA);
	} else {
		memset(q->buf, 0xee, len);
		blkioq_readv(to, at, q->parts, 2, q, 0);
	}
}

static void end(struct blkio_completion *c)
{
	struct request *q = c->user_data;
	if (c->ret != 0) {
		fprintf(stderr, "request of kind %d, block %d, %d blocks: %s %s\n", q->kind, q->first, q->n, strerror(-c->ret), c->error_msg ? c->error_msg : "");
		exit(1);
	}
	if (q->kind == READ)
		compare(q);
	if (q->kind == READ || q->kind == WRITE)
		give_buffer(q);
	if (q->kind != FLUSH)
		memset(locked + q->first, 0, q->n);
	q->busy = 0;
	waiting[q->queue]--;
}

static void open_disk(char *path)
{
	if (blkio_create("virtio-blk-vhost-user", &disk) || blkio_set_str(disk, "path", path) || blkio_connect(disk))
		die("connect");
	if (blkio_set_int(disk, "num-queues", QUEUES) || blkio_start(disk))
		die("start");
	for (int i = 0; i < REGIONS; i++)
		add_region(&regions[i]);
}

int main(int argc, char **argv)
{
	struct blkio_completion done[DEPTH];
	int left, under_way = DEPTH;
	if (argc != 4)
		return 2;
	left = atoi(argv[2]);
	state = strtoull(argv[3], NULL, 10);
	open_disk(argv[1]);
	for (int i = 0; i < DEPTH; i++) {
		requests[i].queue = i % QUEUES;
		begin(&requests[i]);
	}
	for (int queue = 0; under_way > 0; queue = (queue + 1) % QUEUES) {
		if (waiting[queue] == 0)
			continue;
		int n = blkioq_do_io(blkio_get_queue(disk, queue), done, 1, DEPTH, NULL);
		if (n < 0)
			die("do_io");
		for (int i = 0; i < n; i++) {
			end(&done[i]);
			if (left-- > DEPTH)
				begin(done[i].user_data);
			else
				under_way--;
		}
	}
	printf("%d reads, %d writes, %d write-zeroes, %d flushes; %d regions replaced\n", counts[READ], counts[WRITE], counts[ZERO], counts[FLUSH], replaced);
	blkio_destroy(&disk);
	return 0;
}
