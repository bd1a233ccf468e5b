/* An init for tests: loads every module of /modules/order, last line first, each after what its
 * line says it needs; says how that went on the console, and powers off. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static struct { char file[128], needs[1024]; int loaded; } module[512];
static int count, good, bad;

static void load(int i) {
    char path[256];
    if (module[i].loaded) return;
    module[i].loaded = 1;
    snprintf(path, sizeof path, "/modules/%s", module[i].file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* ENODEV: a driver that looks for its hypervisor when it is loaded. */
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != ENODEV)) {
        printf("TEST-INIT cannot load %s: %s\n", module[i].file, strerror(errno));
        bad++;
    } else good++;
    if (fd >= 0) close(fd);
}

int main(void) {
    char line[8192], group[64];
    struct utsname name;
    FILE *order = fopen("/modules/order", "r");
    if (order && fgets(line, sizeof line, order))
        while (count < 512 && fgets(line, sizeof line, order) &&
               sscanf(line, "%63s %127s %1023s", group, module[count].file, module[count].needs) == 3)
            count++;
    for (int i = count - 1; i >= 0; i--) {
        for (char *need = strtok(module[i].needs, ","); need; need = strtok(NULL, ","))
            if (*need != '-') load(atoi(need));
        load(i);
    }
    uname(&name);
    printf("TEST-INIT %s loaded %d failed %d of %d\n", name.release, good, bad, count);
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 1;
}
