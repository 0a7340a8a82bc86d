// SPDX-License-Identifier: Apache-2.0
/*
 * usage: uring KIND: send and receive over loopback by io_uring only.
 * files: ordinary descriptors. fixed: only the ring holds the sockets, without
 * descriptors, and closes them. exit: the same, and the end of the process
 * closes them.
 */
#define _GNU_SOURCE
#include "generator.h"

#include <linux/io_uring.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define TOTAL 5000011
#define CHUNK 65536
#define SLOTS 2

static struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
} ring;

static char *mapped(size_t size, uint64_t offset)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, offset);

	checked(memory == MAP_FAILED ? -1 : 0, "mmap of the ring");
	return memory;
}

static void open_ring(void)
{
	struct io_uring_params params = {};
	char *queue, *completions;

	ring.fd = syscall(SYS_io_uring_setup, 8, &params);
	if (ring.fd < 0) {
		fprintf(stderr, "io_uring_setup: %s\n", strerror(errno));
		exit(UNAVAILABLE);
	}
	queue = mapped(params.sq_off.array + params.sq_entries * sizeof(unsigned int), IORING_OFF_SQ_RING);
	completions = mapped(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	ring.sqes = (void *)mapped(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	ring.sq_tail = (void *)(queue + params.sq_off.tail);
	ring.sq_mask = (void *)(queue + params.sq_off.ring_mask);
	ring.sq_array = (void *)(queue + params.sq_off.array);
	ring.cq_head = (void *)(completions + params.cq_off.head);
	ring.cq_tail = (void *)(completions + params.cq_off.tail);
	ring.cq_mask = (void *)(completions + params.cq_off.ring_mask);
	ring.cqes = (void *)(completions + params.cq_off.cqes);
}

/* Submit one operation, wait for its end, return its result. */
static int run(const struct io_uring_sqe *operation, const char *action)
{
	unsigned int tail = *ring.sq_tail, head = *ring.cq_head;
	int result;

	ring.sqes[tail & *ring.sq_mask] = *operation;
	ring.sq_array[tail & *ring.sq_mask] = tail & *ring.sq_mask;
	__atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
	checked(syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
	while (__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == head)
		;
	result = ring.cqes[head & *ring.cq_mask].res;
	__atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
	if (result < 0)
		errno = -result;
	return checked(result < 0 ? -1 : result, action);
}

static int transfer(int operation, int fd, bool fixed, void *buffer, size_t size)
{
	struct io_uring_sqe entry = {
		.opcode = operation,
		.fd = fd,
		.addr = (uintptr_t)buffer,
		.len = size,
		.flags = fixed ? IOSQE_FIXED_FILE : 0,
	};

	return run(&entry, operation == IORING_OP_SEND ? "send" : "receive");
}

/* Accept into slot 1 of the ring: the connection never has a descriptor. */
static void accept_directly(int server)
{
	struct io_uring_sqe entry = {.opcode = IORING_OP_ACCEPT, .fd = server, .file_index = 1 + 1};

	run(&entry, "accept");
}

static void close_directly(int slot)
{
	struct io_uring_sqe entry = {.opcode = IORING_OP_CLOSE, .file_index = slot + 1};

	run(&entry, "close");
}

int main(int count, char **words)
{
	static char outbox[CHUNK], inbox[CHUNK];
	int server, client, accepted = 1, slots[SLOTS] = {-1, -1};
	const char *kind = count == 2 ? words[1] : "";
	uint64_t sent = 0, received = 0;
	bool fixed = strcmp(kind, "files");
	struct sockaddr_in address;

	if (strcmp(kind, "files") && strcmp(kind, "fixed") && strcmp(kind, "exit")) {
		fprintf(stderr, "usage: uring files|fixed|exit\n");
		return 2;
	}
	open_ring();
	server = listening(&address);
	client = connected(&address);
	if (fixed) {
		slots[0] = client;
		checked(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, slots, SLOTS), "register");
		close(client);
		client = 0;
		accept_directly(server);
	} else {
		accepted = checked(accept(server, NULL, NULL), "accept");
	}
	while (sent < TOTAL) {
		uint64_t goal;

		sent += transfer(IORING_OP_SEND, client, fixed, outbox, TOTAL - sent < CHUNK ? TOTAL - sent : CHUNK);
		for (goal = sent; received < goal;)
			received += transfer(IORING_OP_RECV, accepted, fixed, inbox, CHUNK);
	}
	report(sent, received, 0);
	if (!strcmp(kind, "fixed")) {
		close_directly(client);
		close_directly(accepted);
	}
	return 0;
}
