/* PID 1 of the floors: the least program that does the thing that is measured, and powers off. The network's is
 * the only process of a container, too, and the client on the machine itself: then it just ends.
 * The kernel hands "floor=…" of its command line over as an environment variable:
 *   floor=print                  print one line on the console
 *   floor=vsock:PORT:BYTES       send BYTES zero bytes to PORT of the host
 *   floor=piped:PORT:BYTES       the same, but they come from another process through a pipe
 *   floor=uart:DEVICE:BYTES      write BYTES zero bytes to a serial port, raw
 *   floor=serve:PORT             serve the two below, one connection after the other
 *   floor=fill:ADDRESS:PORT:BYTES   send BYTES zero bytes and wait until all are taken; print the seconds
 *   floor=ping:ADDRESS:PORT:COUNT   COUNT times one byte to and fro; print the median's seconds
 *   floor=net:ADDRESS:…          before one of these three: give eth0 this address, with 24 bits of network */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536

/* What a program other than a VM's first one may not do, and must not. */
static void off(void)
{
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	exit(0);
}

static void fail(const char *what)
{
	dprintf(1, "floor: FAILED %s: %s\n", what, strerror(errno));
	off();
}

/* All modules that bootimage put here, in the order that it found. */
static void load_modules(void)
{
	FILE *order = fopen("/modules/order", "r");
	char line[4096], group[64], file[256];

	if (!order)
		return;
	while (fgets(line, sizeof line, order)) {
		char path[512];
		int fd;

		if (line[0] == '#' || sscanf(line, "%63s %255s", group, file) != 2)
			continue;
		snprintf(path, sizeof path, "/modules/%s", file);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			fail(path);
		close(fd);
	}
	fclose(order);
}

static void send_zeros(int fd, unsigned long long bytes)
{
	static char chunk[CHUNK];

	while (bytes) {
		ssize_t n = write(fd, chunk, bytes < CHUNK ? bytes : CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			fail("write");
		bytes -= n;
	}
}

/* As send_zeros, of what a child writes. */
static void send_piped(int fd, unsigned long long bytes)
{
	static char chunk[CHUNK];
	int ends[2];
	pid_t child;

	if (pipe(ends) || (child = fork()) < 0)
		fail("a child with a pipe");
	if (!child) {
		send_zeros(ends[1], bytes);
		_exit(0);
	}
	while (bytes) {
		ssize_t n = read(ends[0], chunk, CHUNK), sent = 0;

		if (n <= 0)
			fail("read");
		while (sent < n) {
			ssize_t more = write(fd, chunk + sent, n - sent);

			if (more <= 0)
				fail("write");
			sent += more;
		}
		bytes -= n;
	}
}

static void vsock(unsigned port, unsigned long long bytes, int piped)
{
	struct sockaddr_vm host = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
	char end;
	int fd;

	load_modules();
	fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof host))
		fail("connect to the host");
	(piped ? send_piped : send_zeros)(fd, bytes);
	shutdown(fd, SHUT_WR);
	/* The host closes once it has all. */
	while (read(fd, &end, 1) > 0)
		;
}

static void uart(const char *device, unsigned long long bytes)
{
	struct termios raw;
	char path[64];
	int fd;

	if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") && errno != EBUSY)
		fail("mount /dev");
	snprintf(path, sizeof path, "/dev/%s", device);
	fd = open(path, O_RDWR | O_NOCTTY);
	if (fd < 0 || tcgetattr(fd, &raw))
		fail(path);
	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	raw.c_cflag |= CLOCAL;
	if (tcsetattr(fd, TCSANOW, &raw))
		fail(path);
	send_zeros(fd, bytes);
	tcdrain(fd);
}

/* Gives eth0 its address; a device may show up a moment after its driver. */
static void network(const char *address)
{
	struct ifreq card = { .ifr_name = "eth0" };
	struct sockaddr_in *to = (struct sockaddr_in *)&card.ifr_addr;
	struct timespec moment = { .tv_nsec = 10 * 1000 * 1000 };
	int fd, tries;

	load_modules();
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	to->sin_family = AF_INET;
	if (fd < 0 || inet_pton(AF_INET, address, &to->sin_addr) != 1)
		fail(address);
	for (tries = 0; ioctl(fd, SIOCSIFADDR, &card); tries++) {
		if (errno != ENODEV || tries == 500)
			fail("address of eth0");
		nanosleep(&moment, NULL);
	}
	inet_pton(AF_INET, "255.255.255.0", &to->sin_addr);
	if (ioctl(fd, SIOCSIFNETMASK, &card) || ioctl(fd, SIOCGIFFLAGS, &card))
		fail("mask of eth0");
	card.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &card))
		fail("eth0 up");
	close(fd);
}

static void serve(unsigned port)
{
	static char chunk[CHUNK];
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8))
		fail("listen");
	dprintf(1, "floor: ready\n");
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char what;
		ssize_t n;

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		if (read(fd, &what, 1) == 1) {
			while ((n = read(fd, chunk, sizeof chunk)) > 0)
				if (what == 'p' && write(fd, chunk, n) != n)
					break;
			if (what == 'f' && write(fd, "k", 1) != 1)
				dprintf(1, "floor: a client left early\n");
		}
		close(fd);
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Connects; a server that is not up yet is tried again for a while. */
static int reach(const char *address, unsigned port, char what)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timespec moment = { .tv_nsec = 50 * 1000 * 1000 };
	int on = 1, fd = -1, tries;

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	for (tries = 0; tries < 200; tries++) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof to))
			break;
		close(fd);
		fd = -1;
		nanosleep(&moment, NULL);
	}
	if (fd < 0)
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (write(fd, &what, 1) != 1)
		fail("write");
	return fd;
}

static void fill(const char *address, unsigned port, unsigned long long bytes)
{
	int fd = reach(address, port, 'f');
	double begin = now();
	char answer;

	send_zeros(fd, bytes);
	shutdown(fd, SHUT_WR);
	if (read(fd, &answer, 1) != 1)
		fail("the server's word that it has all");
	dprintf(1, "floor: seconds %.9f\n", now() - begin);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void ping(const char *address, unsigned port, unsigned long long count)
{
	static double took[10000];
	int fd = reach(address, port, 'p');
	unsigned long long n;
	char byte = 0;

	if (!count || count > sizeof took / sizeof *took)
		fail("count");
	for (n = 0; n < count; n++) {
		double begin = now();

		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			fail("to and fro");
		took[n] = now() - begin;
	}
	qsort(took, count, sizeof *took, by_size);
	dprintf(1, "floor: seconds %.9f\n", took[count / 2]);
}

int main(void)
{
	const char *what = getenv("floor");
	unsigned long long bytes;
	char device[32], address[64];
	unsigned port;

	if (what && sscanf(what, "net:%63[^:]", address) == 1) {
		network(address);
		what += strlen("net:") + strlen(address) + 1;
	}

	if (!what || !strcmp(what, "print"))
		dprintf(1, "floor: first line\n");
	else if (sscanf(what, "vsock:%u:%llu", &port, &bytes) == 2)
		vsock(port, bytes, 0);
	else if (sscanf(what, "piped:%u:%llu", &port, &bytes) == 2)
		vsock(port, bytes, 1);
	else if (sscanf(what, "uart:%31[^:]:%llu", device, &bytes) == 2)
		uart(device, bytes);
	else if (sscanf(what, "serve:%u", &port) == 1)
		serve(port);
	else if (sscanf(what, "fill:%63[^:]:%u:%llu", address, &port, &bytes) == 3)
		fill(address, port, bytes);
	else if (sscanf(what, "ping:%63[^:]:%u:%llu", address, &port, &bytes) == 3)
		ping(address, port, bytes);
	else
		dprintf(1, "floor: FAILED: do not know %s\n", what);
	off();
}
