/* PID 1 of the floors: the least program that does the thing that is measured, and powers off.
 * The kernel hands "floor=…" of its command line over as an environment variable:
 *   floor=print                  print one line on the console
 *   floor=vsock:PORT:BYTES       send BYTES zero bytes to PORT of the host
 *   floor=uart:DEVICE:BYTES      write BYTES zero bytes to a serial port, raw */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define CHUNK 65536

static void off(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
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

static void vsock(unsigned port, unsigned long long bytes)
{
	struct sockaddr_vm host = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
	char end;
	int fd;

	load_modules();
	fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof host))
		fail("connect to the host");
	send_zeros(fd, bytes);
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

int main(void)
{
	const char *what = getenv("floor");
	unsigned long long bytes;
	char device[32];
	unsigned port;

	if (!what || !strcmp(what, "print"))
		dprintf(1, "floor: first line\n");
	else if (sscanf(what, "vsock:%u:%llu", &port, &bytes) == 2)
		vsock(port, bytes);
	else if (sscanf(what, "uart:%31[^:]:%llu", device, &bytes) == 2)
		uart(device, bytes);
	else
		dprintf(1, "floor: FAILED: do not know %s\n", what);
	off();
}
