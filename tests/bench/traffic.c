/*
 * Traffic on loopback with known counts. Prints one JSON object; `hold` then reads its input to the end.
 *
 *     traffic messages COUNT BYTES       COUNT sends and as many receives of BYTES, over one connection
 *     traffic connections COUNT BYTES    COUNT connections from start to end; the client sends BYTES, the server none
 *     traffic hold COUNT [PERCENT]       COUNT connected sockets: half as many connections; at each line of its
 *                                        input, a byte is sent over PERCENT of them, and a line is printed
 *     traffic files COUNT                one full table of descriptors, shared by COUNT processes, to the end of its input
 *
 * One thread has both ends: loopback delivers within the sending call, so there is no wait and no scheduling.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILES 19900
#define MAX_PROCESSES 32
#define DESTINATIONS 64 /* 127.0.1.1 and following: each has all local ports */

static char buffer[65536];

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static int listener(struct sockaddr_in *address)
{
	socklen_t size = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	*address = (struct sockaddr_in){.sin_family = AF_INET};
	if (fd < 0 || bind(fd, (struct sockaddr *)address, size) || listen(fd, 1024))
		err(1, "listen");
	if (getsockname(fd, (struct sockaddr *)address, &size))
		err(1, "getsockname");
	return fd;
}

static void pair(int server, struct sockaddr_in *address, long number, int *near, int *far)
{
	address->sin_addr.s_addr = htonl(0x7f000101 + number % DESTINATIONS);
	*near = socket(AF_INET, SOCK_STREAM, 0);
	if (*near < 0 || connect(*near, (struct sockaddr *)address, sizeof(*address)))
		err(1, "connect");
	*far = accept(server, NULL, NULL);
	if (*far < 0)
		err(1, "accept");
}

static void carry(int from, int to, size_t bytes)
{
	if (write(from, buffer, bytes) != (ssize_t)bytes)
		err(1, "write");
	if (recv(to, buffer, bytes, MSG_WAITALL) != (ssize_t)bytes)
		err(1, "read");
}

/* Hold `count` sockets, in as many processes as the limit of open files requires; they end with this process. */
/* Hold `count` sockets in this process, and send over the first `active` connections at each byte of `orders`. */
static void hold_part(long count, long active, int orders, int answers)
{
	struct sockaddr_in address;
	int server = listener(&address);
	int *ends = calloc(count, sizeof(*ends));
	char order;

	if (!ends)
		err(1, "calloc");
	for (long number = 0; number < count / 2; number++)
		pair(server, &address, number, &ends[2 * number], &ends[2 * number + 1]);
	do {
		if (write(answers, "", 1) != 1)
			err(1, "write");
		if (read(orders, &order, 1) != 1)
			_exit(0);
		for (long number = 0; number < active; number++)
			carry(ends[2 * number], ends[2 * number + 1], 1);
	} while (1);
}

static void hold(long count, long percent)
{
	int orders[MAX_PROCESSES][2], answers[2], processes = 0;
	struct rlimit files;
	long max_per_process, part;
	double began = now();
	char done;

	if (getrlimit(RLIMIT_NOFILE, &files) || pipe(answers))
		err(1, "getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files))
		err(1, "setrlimit");
	max_per_process = ((long)files.rlim_max - 64 - 2 * MAX_PROCESSES) / 2 * 2;
	for (long left = count; left > 0; left -= part, processes++) {
		part = left < max_per_process ? left : max_per_process;
		if (processes == MAX_PROCESSES || pipe(orders[processes]))
			err(1, "pipe");
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			hold_part(part, part / 2 * percent / 100, orders[processes][0], answers[1]);
		}
		if (read(answers[0], &done, 1) != 1)
			err(1, "read");
	}
	printf("{\"count\": %ld, \"seconds\": %.6f}\n", count, now() - began);
	fflush(stdout);
	while (fgets(buffer, sizeof(buffer), stdin)) {
		for (int number = 0; number < processes; number++)
			if (write(orders[number][1], "", 1) != 1 || read(answers[0], &done, 1) != 1)
				err(1, "order");
		puts("sent");
		fflush(stdout);
	}
}

/* Open /dev/null up to the limit of open files, and share the table of descriptors with `count` sleeping processes. */
static void share_files(long count)
{
	struct rlimit files;
	long open_files = 0;
	int null = open("/dev/null", O_RDONLY);

	if (null < 0 || getrlimit(RLIMIT_NOFILE, &files))
		err(1, "getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files))
		err(1, "setrlimit");
	for (; open_files < (long)files.rlim_max - 100 && open_files < MAX_FILES; open_files++)
		if (dup(null) < 0)
			err(1, "dup");
	for (long number = 0; number < count; number++) {
		long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);

		if (pid < 0)
			err(1, "clone");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
	}
	printf("{\"files\": %ld}\n", open_files * count);
	fflush(stdout);
	while (fgets(buffer, sizeof(buffer), stdin))
		;
}

int main(int argument_count, char **arguments)
{
	struct sockaddr_in address;
	int server, near, far, one = 1;
	double began;
	size_t bytes;
	long count;

	if (argument_count < 3)
		errx(2, "usage: traffic messages|connections|hold|files COUNT [BYTES|PERCENT]");
	count = atol(arguments[2]);
	bytes = argument_count > 3 ? (size_t)atol(arguments[3]) : 0;
	if (bytes > sizeof(buffer))
		errx(2, "at most %zu bytes", sizeof(buffer));
	began = now();
	if (!strcmp(arguments[1], "hold")) {
		hold(count, (long)bytes);
		return 0;
	}
	if (!strcmp(arguments[1], "files")) {
		share_files(count);
		return 0;
	}
	server = listener(&address);
	if (!strcmp(arguments[1], "messages")) {
		pair(server, &address, 0, &near, &far);
		setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		began = now();
		for (long number = 0; number < count; number++)
			carry(near, far, bytes);
	} else {
		for (long number = 0; number < count; number++) {
			pair(server, &address, number, &near, &far);
			if (bytes)
				carry(near, far, bytes);
			close(near);
			close(far);
		}
	}
	printf("{\"count\": %ld, \"bytes\": %ld, \"seconds\": %.6f}\n", count, count * (long)bytes, now() - began);
	return 0;
}
