/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the generators: a pair of connected sockets on loopback, and a
 * report of the bytes sent and received, by their own count. A generator keeps
 * its sockets open until its standard input ends, so that a test can read them
 * while they are live.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define UNAVAILABLE 77 /* exit status: this kernel lacks the tested feature; stderr names it */

static int checked(int result, const char *action)
{
	if (result >= 0)
		return result;
	fprintf(stderr, "%s: %s\n", action, strerror(errno));
	exit(1);
}

static int listening(struct sockaddr_in *address)
{
	socklen_t size = sizeof(*address);
	int fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");

	memset(address, 0, sizeof(*address));
	address->sin_family = AF_INET;
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	checked(bind(fd, (struct sockaddr *)address, size), "bind");
	checked(listen(fd, 8), "listen");
	checked(getsockname(fd, (struct sockaddr *)address, &size), "getsockname");
	return fd;
}

static int connected(const struct sockaddr_in *address)
{
	int fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");

	checked(connect(fd, (const struct sockaddr *)address, sizeof(*address)), "connect");
	return fd;
}

/* Report to the test, and wait for the end of its reading. `cut_short`: calls that sent less than requested. */
static void report(uint64_t sent, uint64_t received, uint64_t cut_short)
{
	char byte;

	printf("{\"sent\": %llu, \"received\": %llu, \"cut_short\": %llu}\n", (unsigned long long)sent,
	       (unsigned long long)received, (unsigned long long)cut_short);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}
