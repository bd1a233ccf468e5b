/* PID 1 of the test guests: does what "test=" on the kernel's command line says, reports on the
 * console (ttyS0), powers off. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536

static char cmdline[4096];

static const char *option(const char *name)
{
	static char value[8][256];
	static int next;
	char *at = strstr(cmdline, name);
	char *out = value[next++ % 8];

	if (!at)
		return "";
	at += strlen(name);
	snprintf(out, 256, "%.*s", (int)strcspn(at, " \n"), at);
	return out;
}

static void end(int how)
{
	sync();
	reboot(how);
	_exit(1);
}

static void fail(const char *what)
{
	printf("FAILED %s: %s\n", what, strerror(errno));
	end(RB_POWER_OFF);
}

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		char path[512];
		int fd;

		if (names[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
		fd = open(path, O_RDONLY);
		if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
			printf("note: %s: %s\n", path, strerror(errno));
		close(fd);
	}
}

static int dial(unsigned port)
{
	struct sockaddr_vm to = { .svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_HOST };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		fail("socket");
	if (connect(fd, (void *)&to, sizeof to)) {
		int e = errno;

		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static void write_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t w = write(fd, bytes, n);

		if (w <= 0)
			fail("write");
		bytes += w;
		n -= w;
	}
}

static unsigned rnd(unsigned *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state;
}

static void fill(char *buffer, size_t n, unsigned *state)
{
	for (size_t i = 0; i + 4 <= n; i += 4) {
		unsigned v = rnd(state);

		memcpy(buffer + i, &v, 4);
	}
}

/* Send n bytes from a child, read them back here, compare; half close in between. */
static void echo(unsigned port, size_t total)
{
	static char sent[CHUNK], got[CHUNK];
	int fd = dial(port);
	unsigned state = 1;
	size_t done = 0;

	if (fd < 0)
		fail("connect");
	if (fork() == 0) {
		unsigned s = 1;

		for (size_t n = 0; n < total; n += CHUNK) {
			fill(sent, CHUNK, &s);
			write_all(fd, sent, CHUNK);
		}
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	while (done < total) {
		size_t have = 0;

		while (have < CHUNK) {
			ssize_t n = read(fd, got + have, CHUNK - have);

			if (n <= 0)
				fail("read");
			have += n;
		}
		fill(sent, CHUNK, &state);
		if (memcmp(sent, got, CHUNK))
			fail("compare");
		done += CHUNK;
	}
	if (read(fd, got, 1) != 0)
		fail("end of stream");
	wait(NULL);
	close(fd);
	printf("echoed %zu\n", done);
}

static void source(unsigned port, size_t total)
{
	static char buffer[CHUNK];
	int fd = dial(port);
	long long start = now_ms();
	char c;

	if (fd < 0)
		fail("connect");
	for (size_t n = 0; n < total; n += CHUNK)
		write_all(fd, buffer, CHUNK);
	shutdown(fd, SHUT_WR);
	if (read(fd, &c, 1) != 0)
		fail("the host's end");
	printf("out %lld ms\n", now_ms() - start);
}

static void sink(unsigned port)
{
	static char buffer[CHUNK];
	int fd = dial(port);
	long long start = now_ms();
	size_t total = 0;
	ssize_t n;

	if (fd < 0)
		fail("connect");
	while ((n = read(fd, buffer, sizeof buffer)) > 0)
		total += n;
	printf("in %zu bytes %lld ms\n", total, now_ms() - start);
}

static int uart(const char *device)
{
	struct termios t;
	int fd = open(device, O_RDWR | O_NOCTTY);

	if (fd < 0 || tcgetattr(fd, &t))
		fail(device);
	cfmakeraw(&t);
	cfsetspeed(&t, B115200);
	t.c_cflag |= CRTSCTS | CLOCAL | CREAD;
	if (tcsetattr(fd, TCSANOW, &t))
		fail("tcsetattr");
	return fd;
}

/* Send a pattern of all bytes, then give back what comes, up to a given number of bytes. */
static void serial(size_t send, size_t receive)
{
	static char buffer[CHUNK];
	int fd = uart("/dev/ttyS1");
	long long start = now_ms();

	for (size_t done = 0; done < send; done += 4096) {
		for (size_t i = 0; i < 4096; i++)
			buffer[i] = (done + i) % 251 + 5;
		buffer[0] = (char)255;
		write_all(fd, buffer, 4096);
	}
	tcdrain(fd);
	printf("uart out %lld ms\n", now_ms() - start);
	while (receive) {
		ssize_t n = read(fd, buffer, receive < CHUNK ? receive : CHUNK);

		if (n <= 0)
			fail("read ttyS1");
		write_all(fd, buffer, n);
		receive -= n;
	}
	tcdrain(fd);
}

static struct sockaddr_in address(const char *text, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, text, &a.sin_addr);
	return a;
}

/* Take a static address on eth0, and say something to a port of the gateway's. */
static void net(const char *own, const char *gateway, int port)
{
	struct sockaddr_in to = address(gateway, port);
	struct ifreq r = { .ifr_name = "eth0" };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	*(struct sockaddr_in *)&r.ifr_addr = address(own, 0);
	if (ioctl(fd, SIOCSIFADDR, &r))
		fail("SIOCSIFADDR");
	*(struct sockaddr_in *)&r.ifr_netmask = address("255.255.0.0", 0);
	if (ioctl(fd, SIOCSIFNETMASK, &r))
		fail("SIOCSIFNETMASK");
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &r))
		fail("SIOCSIFFLAGS");
	close(fd);
	fd = open("/sys/class/net/eth1/address", O_RDONLY);
	if (fd >= 0) {
		char mac[32] = "";

		if (read(fd, mac, sizeof mac - 1) > 0)
			printf("eth1: %s", mac);
		close(fd);
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (void *)&to, sizeof to))
		fail("connect");
	write_all(fd, "hello", 5);
	close(fd);
}

struct nic {
	char name[IFNAMSIZ];
	unsigned char mac[6];
	int fd, seen;
};

static void print_mac(const char *what, const unsigned char *mac, const char *rest)
{
	printf("%s %02x:%02x:%02x:%02x:%02x:%02x%s\n", what, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], rest);
}

/* Take a vNIC that has appeared into use: 0, or it is not ready yet. */
static int take(struct nic *nic, const char *name)
{
	struct ifreq r = { 0 };
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5) };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(0x88b5));

	if (fd < 0)
		fail("packet socket");
	snprintf(nic->name, IFNAMSIZ, "%s", name);
	snprintf(r.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, SIOCGIFHWADDR, &r))
		goto not_yet;
	memcpy(nic->mac, r.ifr_hwaddr.sa_data, 6);
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &r) || ioctl(fd, SIOCGIFINDEX, &r))
		goto not_yet;
	at.sll_ifindex = r.ifr_ifindex;
	if (bind(fd, (void *)&at, sizeof at))
		goto not_yet;
	nic->fd = fd;
	print_mac("nic", nic->mac, "");
	return 0;
not_yet:
	close(fd);
	return -1;
}

/* Say who is there on each vNIC, again and again, and print what is heard, each sender once a
 * second; vNICs come and go. */
static void ether(void)
{
	static struct nic nics[10];
	static struct { unsigned char key[12]; long long at; } heard[64];
	int senders = 0;

	for (;;) {
		DIR *all = opendir("/sys/class/net");
		struct dirent *d;

		for (int i = 0; i < 10; i++)
			nics[i].seen = 0;
		while (all && (d = readdir(all))) {
			int known = -1, empty = -1;

			if (strncmp(d->d_name, "eth", 3))
				continue;
			for (int i = 0; i < 10; i++) {
				if (nics[i].name[0] && !strcmp(nics[i].name, d->d_name))
					known = i;
				else if (!nics[i].name[0])
					empty = i;
			}
			if (known < 0 && empty >= 0 && !take(&nics[empty], d->d_name))
				known = empty;
			else if (known < 0 && empty >= 0)
				nics[empty].name[0] = 0;
			if (known >= 0)
				nics[known].seen = 1;
		}
		closedir(all);
		for (int i = 0; i < 10; i++) {
			unsigned char frame[60] = { 255, 255, 255, 255, 255, 255 }, in[2048];

			if (!nics[i].name[0])
				continue;
			if (!nics[i].seen) {
				print_mac("gone", nics[i].mac, "");
				close(nics[i].fd);
				nics[i].name[0] = 0;
				continue;
			}
			memcpy(frame + 6, nics[i].mac, 6);
			frame[12] = 0x88;
			frame[13] = 0xb5;
			send(nics[i].fd, frame, sizeof frame, MSG_DONTWAIT);
			while (recv(nics[i].fd, in, sizeof in, MSG_DONTWAIT) > 0) {
				char by[32];
				int n;

				for (n = 0; n < senders; n++)
					if (!memcmp(heard[n].key, nics[i].mac, 6) && !memcmp(heard[n].key + 6, in + 6, 6))
						break;
				if (n == 64)
					fail("too many senders");
				if (n == senders)
					senders++;
				else if (now_ms() - heard[n].at < 1000)
					continue;
				memcpy(heard[n].key, nics[i].mac, 6);
				memcpy(heard[n].key + 6, in + 6, 6);
				heard[n].at = now_ms();
				snprintf(by, sizeof by, " by %02x", nics[i].mac[5]);
				print_mac("heard", in + 6, by);
			}
		}
		usleep(20000);
	}
}

int main(void)
{
	const char *test;
	int fd;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("dev", "/dev", "devtmpfs", 0, "");
	fd = open("/dev/console", O_RDWR);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	setvbuf(stdout, NULL, _IONBF, 0);
	fd = open("/proc/cmdline", O_RDONLY);
	if (read(fd, cmdline, sizeof cmdline - 1) <= 0)
		fail("cmdline");
	close(fd);
	load_modules();
	test = option("test=");
	printf("guest: %s\n", test);

	if (!strcmp(test, "reset")) {
		end(RB_AUTOBOOT);
	} else if (!strcmp(test, "wait")) {
		printf("waiting\n");
		for (;;)
			pause();
	} else if (!strcmp(test, "fwcfg")) {
		char path[512], value[4096];
		ssize_t n;

		snprintf(path, sizeof path, "/sys/firmware/qemu_fw_cfg/by_name/opt/%s/raw", option("key="));
		fd = open(path, O_RDONLY);
		n = read(fd, value, sizeof value - 1);
		if (n < 0)
			fail(path);
		value[n] = 0;
		printf("value: %s\n", value);
	} else if (!strcmp(test, "refused")) {
		long long start = now_ms();

		fd = dial(99);
		printf("dial: %s, %s\n", fd < 0 ? strerror(errno) : "connected",
		       now_ms() - start < 1500 ? "at once" : "late");
	} else if (!strcmp(test, "echo")) {
		echo(atoi(option("port=")), strtoul(option("bytes="), NULL, 10));
	} else if (!strcmp(test, "many")) {
		int n = atoi(option("connections="));

		for (int i = 0; i < n; i++)
			if (fork() == 0) {
				echo(atoi(option("port=")), strtoul(option("bytes="), NULL, 10));
				_exit(0);
			}
		while (wait(NULL) > 0)
			;
	} else if (!strcmp(test, "speed")) {
		source(atoi(option("port=")), strtoul(option("bytes="), NULL, 10));
		sink(atoi(option("port=")) + 1);
	} else if (!strcmp(test, "burst")) {
		/* The last bytes before the power goes must arrive, too. */
		static char buffer[CHUNK];

		fd = dial(atoi(option("port=")));
		if (fd < 0)
			fail("connect");
		memset(buffer, 'x', sizeof buffer);
		write_all(fd, buffer, sizeof buffer);
		/*
		 * write() leaves the bytes with a worker of the kernel's, which the power-off may overtake. A refusal comes
		 * behind them: the device has them then.
		 */
		if (dial(atoi(option("port=")) + 1) >= 0)
			fail("somebody listens where nobody should");
	} else if (!strcmp(test, "serial")) {
		serial(strtoul(option("send="), NULL, 10), strtoul(option("receive="), NULL, 10));
	} else if (!strcmp(test, "net")) {
		net(option("own="), option("gateway="), atoi(option("port=")));
	} else if (!strcmp(test, "ether")) {
		ether();
	} else if (!strcmp(test, "disk")) {
		char first[16] = "";

		fd = -1;
		for (int i = 0; i < 500 && fd < 0; i++) {
			fd = open("/dev/sda", O_RDWR | O_SYNC);
			if (fd < 0)
				usleep(10000);
		}
		if (fd < 0 || pread(fd, first, 15, 0) < 0)
			fail("/dev/sda");
		printf("disk: %s\n", first);
		if (pwrite(fd, "changed", 8, 0) != 8)
			fail("write /dev/sda");
	}
	printf("done\n");
	end(RB_POWER_OFF);
	return 0;
}
