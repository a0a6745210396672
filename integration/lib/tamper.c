/* Loaded into an agent under test: has its talk with the kernel's firewall fail, its clock jump as that of a host that
 * slept, and its calendar be another. What to do stands in a file that both sides see: six 64-bit numbers.
 *   0    seconds that the host has slept
 *   1, 2 how many messages until one cannot be sent (0: none), and the error number
 *   3, 4 the same for answers and events that are read
 *   5    seconds that the calendar is ahead */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t nothing[6];
static volatile int64_t *orders = nothing;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static ssize_t (*real_recv)(int, void *, size_t, int);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("KNOCK_AGENT_TEST_ORDERS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    real_recv = dlsym(RTLD_NEXT, "recv");
    if (file >= 0) {
        void *page = mmap(NULL, sizeof nothing, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

        if (page != MAP_FAILED)
            orders = page;
        close(file);
    }
}

/* Whether this call is the one that fails. */
static int fails(int fd, int at)
{
    int domain = 0;
    socklen_t length = sizeof domain;

    if (orders[at] <= 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) || domain != AF_NETLINK)
        return 0;
    if (__atomic_sub_fetch(&orders[at], 1, __ATOMIC_SEQ_CST) != 0)
        return 0;
    errno = orders[at + 1];
    return 1;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int outcome = real_clock_gettime(clock, now);

    if (!outcome && clock == CLOCK_BOOTTIME)
        now->tv_sec += orders[0];
    if (!outcome && clock == CLOCK_REALTIME)
        now->tv_sec += orders[5];
    return outcome;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return fails(fd, 1) ? -1 : real_sendmsg(fd, message, flags);
}

ssize_t recv(int fd, void *buffer, size_t length, int flags)
{
    return fails(fd, 3) ? -1 : real_recv(fd, buffer, length, flags);
}
