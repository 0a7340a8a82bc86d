// SPDX-License-Identifier: Apache-2.0
/*
 * Mixed load over loopback with exact counts. Arguments: seconds, connections
 * per second. Prints totals as JSON: it has both ends of every connection, so
 * each byte sent is received, and each connect, accept and close is counted
 * here before the kernel counts it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 2
#define BIG (20 << 20)

static struct totals {
	uint64_t connects, accepts, closes, refused, resets, sent, received;
} *totals;

static uint64_t state;

static void add(uint64_t *count, uint64_t number)
{
	__atomic_fetch_add(count, number, __ATOMIC_RELAXED);
}

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		_exit(1);
	}
}

static uint64_t chance(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int listener(uint16_t *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof(address)) && !listen(fd, 1024), "listen");
	check(!getsockname(fd, (struct sockaddr *)&address, &size), "getsockname");
	*port = ntohs(address.sin_port);
	return fd;
}

/* Connect to one of many addresses of this host: each has all local ports. */
static int connected(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd >= 0, "socket");
	address.sin_addr.s_addr = htonl(0x7f000000 | (1 + chance(250)) << 8 | (1 + chance(250)));
	add(&totals->connects, 1);
	add(&totals->closes, 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		check(errno == ECONNREFUSED, "connect");
		add(&totals->refused, 1);
		close(fd);
		return -1;
	}
	return fd;
}

static int accepted(int server)
{
	int fd = accept(server, NULL, NULL);

	check(fd >= 0, "accept");
	add(&totals->accepts, 1);
	add(&totals->closes, 1);
	return fd;
}

static void move(int from, int to, size_t size)
{
	static char buffer[65536];
	ssize_t got;

	check(send(from, buffer, size, 0) == (ssize_t)size, "send");
	add(&totals->sent, size);
	for (size_t left = size; left; left -= got) {
		got = recv(to, buffer, left < sizeof(buffer) ? left : sizeof(buffer), 0);
		check(got > 0, "recv");
	}
	add(&totals->received, size);
}

static void short_exchange(int server, uint16_t port)
{
	int client = connected(port), peer = accepted(server);

	move(client, peer, 1 + chance(2000));
	move(peer, client, 1 + chance(8000));
	close(chance(2) ? client : peer);
	close(client);
	close(peer);
}

/* The server never reads the client's bytes, but acknowledges them: its close sends a reset, and no connect failed. */
static void reset(int server, uint16_t port)
{
	int client = connected(port), peer = accepted(server);
	size_t size = 1 + chance(1000);
	char byte;

	check(send(client, &(char[1000]){0}, size, 0) == (ssize_t)size, "send");
	check(recv(peer, &byte, 1, MSG_PEEK) == 1, "peek");
	add(&totals->sent, size);
	add(&totals->received, size);
	add(&totals->resets, 1);
	close(peer);
	close(client);
}

static void refused(void)
{
	check(connected(1) < 0, "port 1 is expected to be closed");
}

/* A process that connects, sends, and ends with all sockets open. */
static void dying(int server, uint16_t port)
{
	pid_t pid = fork();

	check(pid >= 0, "fork");
	if (!pid) {
		for (int number = 0; number < 3; number++) {
			int client = connected(port);

			move(client, accepted(server), 100);
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void big_transfer(int server, uint16_t port)
{
	static char buffer[1 << 20];
	size_t size = BIG + chance(BIG);
	int client = connected(port), peer = accepted(server);
	pid_t pid = fork();

	check(pid >= 0, "fork");
	if (!pid) {
		close(peer);
		for (size_t left = size; left;) {
			ssize_t put = send(client, buffer, left < sizeof(buffer) ? left : sizeof(buffer), 0);
			check(put > 0, "send");
			left -= put;
		}
		_exit(0);
	}
	close(client);
	for (size_t left = size; left;) {
		ssize_t got = recv(peer, buffer, sizeof(buffer), 0);
		check(got > 0, "recv");
		left -= got;
	}
	add(&totals->sent, size);
	add(&totals->received, size);
	close(peer);
	waitpid(pid, NULL, 0);
}

static void work(double seconds, unsigned rate, uint64_t seed)
{
	uint16_t port;
	int server = listener(&port);
	double began = now();

	state = seed;
	for (unsigned burst = 0; now() - began < seconds; burst++) {
		for (unsigned number = 0; number < rate / WORKERS && now() - began < seconds; number++) {
			uint64_t kind = chance(1000);

			if (kind < 880)
				short_exchange(server, port);
			else if (kind < 940)
				reset(server, port);
			else if (kind < 997)
				refused();
			else
				dying(server, port);
		}
		big_transfer(server, port);
		while (now() - began < burst + 1 && now() - began < seconds)
			usleep(1000);
	}
	close(server);
}

int main(int argc, char **argv)
{
	check(argc == 3, "arguments: seconds, connections a second");
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(totals != MAP_FAILED, "mmap");
	for (int worker = 0; worker < WORKERS; worker++) {
		pid_t pid = fork();

		check(pid >= 0, "fork");
		if (!pid) {
			work(atof(argv[1]), atoi(argv[2]), 0x9e3779b97f4a7c15ULL + worker);
			_exit(0);
		}
	}
	for (int worker = 0, status; worker < WORKERS; worker++)
		check(wait(&status) > 0 && WIFEXITED(status) && !WEXITSTATUS(status), "a worker failed");
	printf("{\"connects\": %lu, \"accepts\": %lu, \"closes\": %lu, \"connect_failures\": %lu, \"resets_sent\": "
	       "%lu, "
	       "\"bytes_sent\": %lu, \"bytes_received\": %lu}\n",
	       totals->connects, totals->accepts, totals->closes, totals->refused, totals->resets, totals->sent,
	       totals->received);
	return 0;
}
