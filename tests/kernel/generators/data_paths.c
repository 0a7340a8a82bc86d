// SPDX-License-Identifier: Apache-2.0
/* usage: data_paths PATH: send bytes over loopback by one of the kernel's ways in and out of a socket. */
#define _GNU_SOURCE
#include "generator.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>

#define CHUNK (1 << 20)

static char buffer[CHUNK], inbox[CHUNK];
static uint64_t cut_short;

/* Send with flags until the kernel has accepted `total` bytes, and count the accepted bytes. */
static uint64_t send_all(int fd, uint64_t total, int flags)
{
	uint64_t sent = 0;

	while (sent < total) {
		size_t left = total - sent < CHUNK ? total - sent : CHUNK;
		ssize_t taken = send(fd, buffer, left, flags);

		if (taken < 0 && errno != EAGAIN)
			checked(-1, "send");
		cut_short += taken != (ssize_t)left;
		if (taken > 0)
			sent += taken;
	}
	return sent;
}

/* A small buffer, so that a send finds no space. */
static void make_narrow(int fd)
{
	int size = 65536;

	checked(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), "SO_SNDBUF");
}

static uint64_t by_send(int fd)
{
	return send_all(fd, 20000003, 0);
}

/* A send without space ends after the minimum wait: most are cut short or fail. */
static uint64_t by_impatient_send(int fd)
{
	struct timeval microsecond = {.tv_usec = 1};

	make_narrow(fd);
	checked(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &microsecond, sizeof(microsecond)), "SO_SNDTIMEO");
	return send_all(fd, 100000007, 0);
}

/* A storm of EAGAIN. */
static uint64_t by_nonblocking_send(int fd)
{
	make_narrow(fd);
	return send_all(fd, 50000017, MSG_DONTWAIT);
}

static int file_of(uint64_t size)
{
	int file = checked(memfd_create("payload", 0), "memfd_create");

	checked(ftruncate(file, size), "ftruncate");
	return file;
}

static uint64_t by_sendfile(int fd)
{
	const uint64_t total = 30000001;
	int file = file_of(total);
	uint64_t sent = 0;

	while (sent < total)
		sent += checked(sendfile(fd, file, NULL, total - sent), "sendfile");
	return sent;
}

static uint64_t by_splice(int fd)
{
	const uint64_t total = 10000019;
	int file = file_of(total), pipes[2];
	uint64_t sent = 0;

	checked(pipe(pipes), "pipe");
	while (sent < total) {
		int filled = checked(splice(file, NULL, pipes[1], NULL, 65536, 0), "splice into the pipe");

		while (filled > 0) {
			int moved = checked(splice(pipes[0], NULL, fd, NULL, filled, 0), "splice into the socket");

			filled -= moved;
			sent += moved;
		}
	}
	return sent;
}

static uint64_t by_zerocopy_send(int fd)
{
	const uint64_t total = 8000009;
	uint64_t sent = 0;
	char control[256];
	int on = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on))) {
		fprintf(stderr, "SO_ZEROCOPY: %s\n", strerror(errno));
		exit(UNAVAILABLE);
	}
	while (sent < total) {
		struct msghdr completion = {.msg_control = control, .msg_controllen = sizeof(control)};
		ssize_t taken = send(fd, buffer, total - sent < 65536 ? total - sent : 65536, MSG_ZEROCOPY);

		if (taken < 0 && errno != ENOBUFS)
			checked(-1, "send with MSG_ZEROCOPY");
		if (taken > 0)
			sent += taken;
		while (recvmsg(fd, &completion, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
			completion.msg_controllen = sizeof(control);
	}
	return sent;
}

/* Urgent data is in the stream like other data. */
static uint64_t with_urgent_bytes(int fd)
{
	uint64_t sent = 0;

	for (int round = 0; round < 101; round++) {
		sent += send_all(fd, 1009, 0);
		sent += send_all(fd, 1, MSG_OOB);
	}
	return sent;
}

static uint64_t by_read(int fd)
{
	uint64_t received = 0;
	ssize_t got;

	while ((got = checked(read(fd, inbox, CHUNK), "read")))
		received += got;
	return received;
}

/* With pauses longer than a tick of the kernel's timer, so that a sender's minimum wait ends before there is space. */
static uint64_t by_slow_read(int fd)
{
	uint64_t received = 0;
	ssize_t got;

	while ((got = checked(recv(fd, inbox, CHUNK, MSG_WAITALL), "recv"))) {
		received += got;
		usleep(10000);
	}
	return received;
}

static uint64_t by_splice_out(int fd)
{
	int pipes[2], null = checked(open("/dev/null", O_WRONLY), "/dev/null");
	uint64_t received = 0;
	int got;

	checked(pipe(pipes), "pipe");
	while ((got = checked(splice(fd, NULL, pipes[1], NULL, 65536, 0), "splice out of the socket"))) {
		received += got;
		while (got > 0)
			got -= checked(splice(pipes[0], NULL, null, NULL, got, 0), "splice into /dev/null");
	}
	return received;
}

/* MSG_TRUNC discards the bytes without a copy (tcp(7)), after one MSG_PEEK. */
static uint64_t by_discarding(int fd)
{
	uint64_t received = 0;
	ssize_t got;

	do {
		checked(recv(fd, inbox, 1000, MSG_PEEK), "recv with MSG_PEEK");
		got = checked(recv(fd, NULL, 65536, MSG_TRUNC), "recv with MSG_TRUNC");
		received += got;
	} while (got);
	return received;
}

static const struct path {
	const char *name;
	uint64_t (*in)(int fd);
	uint64_t (*out)(int fd);
} paths[] = {
	{"send", by_send, by_read},
	{"send-timeout", by_impatient_send, by_slow_read},
	{"nonblocking", by_nonblocking_send, by_read},
	{"sendfile", by_sendfile, by_read},
	{"splice-in", by_splice, by_read},
	{"splice-out", by_send, by_splice_out},
	{"zerocopy", by_zerocopy_send, by_read},
	{"urgent", with_urgent_bytes, by_read},
	{"discard", by_send, by_discarding},
};

struct receiver {
	const struct path *path;
	int fd;
	uint64_t received;
};

static void *receive(void *argument)
{
	struct receiver *receiver = argument;

	receiver->received = receiver->path->out(receiver->fd);
	return NULL;
}

int main(int count, char **words)
{
	struct receiver receiver = {};
	struct sockaddr_in address;
	pthread_t thread;
	uint64_t sent;
	int on = 1, server, client;

	for (size_t number = 0; number < sizeof(paths) / sizeof(*paths); number++)
		if (count == 2 && !strcmp(words[1], paths[number].name))
			receiver.path = &paths[number];
	if (!receiver.path) {
		fprintf(stderr, "usage: data_paths PATH\n");
		return 2;
	}
	server = listening(&address);
	client = connected(&address);
	receiver.fd = checked(accept(server, NULL, NULL), "accept");
	checked(setsockopt(receiver.fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)), "SO_OOBINLINE");
	checked(pthread_create(&thread, NULL, receive, &receiver) ? -1 : 0, "pthread_create");
	sent = receiver.path->in(client);
	checked(shutdown(client, SHUT_WR), "shutdown");
	pthread_join(thread, NULL);
	report(sent, receiver.received, cut_short);
	return 0;
}
