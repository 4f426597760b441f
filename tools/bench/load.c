/*
 * load: UDP at a rate, the count of what arrives, and echo probes, at little cost of CPU.
 *
 *     load send DEVICE TARGET PORT SIZE RATE SECONDS    ->  {"sent": n, "refused": n, "seconds": s}
 *     load receive PORT                                 ->  ready, and after the end of stdin {"received": n, "overrun": n}
 *     load ping DEVICE TARGET INTERVAL_US SECONDS       ->  [12.5, null, ...]   round trips in µs, null where none came back
 *
 * SIZE is the UDP payload in bytes, RATE packets per second (0: as fast as it can). The sender sends what came due every
 * TICK_NS by one sendmmsg, so that a burst is no longer than a tick, or BATCH packets after it was kept from running. The
 * probes are ICMP echo by the kernel's echo sockets; both ends of a round trip are kernel time, but for the way into sendto.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/sock_diag.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64,
    TICK_NS = 200000,
    PAYLOAD_MAX = 65507,
    SOCKET_BYTES = 16 << 20,
    QUIET_MS = 150,               /* longer than any queue on the way */
    STRAGGLERS_MS = 300,          /* waited for after the last probe */
    PROBES_MAX = 1 << 20,
};
static const int64_t SECOND = 1000000000;

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(errno));
    exit(1);
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static void sleep_until(int64_t when)
{
    struct timespec at = { .tv_sec = when / SECOND, .tv_nsec = when % SECOND };
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void set_option(int fd, int name, const void *value, socklen_t size)
{
    if (setsockopt(fd, SOL_SOCKET, name, value, size))
        fail("socket option %d", name);
}

static int open_socket(int protocol, const char *device)
{
    int bytes = SOCKET_BYTES;
    int fd = socket(AF_INET, SOCK_DGRAM, protocol);
    if (fd < 0)
        fail("socket");
    if (device && *device)
        set_option(fd, SO_BINDTODEVICE, device, strlen(device));
    set_option(fd, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    return fd;
}

static struct sockaddr_in address(const char *text, int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    if (inet_pton(AF_INET, text, &to.sin_addr) != 1)
        fail("%s is no IPv4 address", text);
    return to;
}

/* ---------------------------------------------------------------- send */

static void send_load(const char *device, const char *target, int port, size_t size, double rate, double seconds)
{
    static char payload[PAYLOAD_MAX];
    static struct mmsghdr messages[BATCH];
    struct iovec part = { payload, size };
    struct sockaddr_in to = address(target, port);
    int fd = open_socket(0, device);

    if (size > sizeof payload)
        errno = EMSGSIZE, fail("size %zu", size);
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail("connect to %s", target);
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };

    uint64_t sent = 0, refused = 0;
    int64_t start = clock_ns(CLOCK_MONOTONIC), limit = seconds * SECOND, elapsed, tick = start;
    while ((elapsed = clock_ns(CLOCK_MONOTONIC) - start) < limit) {
        uint64_t due = rate > 0 ? (uint64_t)(elapsed / 1e9 * rate) : UINT64_MAX;
        uint64_t missing = due - (sent + refused);
        int count = missing < BATCH ? (int)missing : BATCH;
        int done = count ? sendmmsg(fd, messages, count, 0) : 0;
        if (done < 0)
            refused += 1;               /* no room, or the far end's ICMP for an earlier one */
        else
            sent += done;
        if (count < BATCH) {
            tick += TICK_NS;
            if (tick < start + elapsed)
                tick = start + elapsed;
            sleep_until(tick);
        }
    }
    printf("{\"sent\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"seconds\": %.6f}\n", sent, refused, elapsed / 1e9);
}

/* ---------------------------------------------------------------- receive */

static void receive_load(int port)
{
    static char scrap[BATCH][1];        /* a count is all that is wanted: the kernel copies one byte of each */
    static struct mmsghdr messages[BATCH];
    static struct iovec parts[BATCH];
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
    uint32_t memory[SK_MEMINFO_VARS];
    socklen_t size = sizeof memory;
    uint64_t received = 0;
    int fd = open_socket(0, NULL), timeout = -1;

    if (bind(fd, (struct sockaddr *)&any, sizeof any))
        fail("port %d", port);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){ scrap[i], sizeof scrap[i] };
        messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
    }
    puts("ready");
    fflush(stdout);
    struct pollfd watched[2] = { { .fd = fd, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
    int ready;
    while ((ready = poll(watched, timeout < 0 ? 2 : 1, timeout)) != 0) {
        if (ready < 0)
            fail("poll");
        if (timeout < 0 && watched[1].revents)
            timeout = QUIET_MS;
        if (watched[0].revents) {
            int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
            received += count > 0 ? count : 0;
        }
    }
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size))
        fail("SO_MEMINFO");
    printf("{\"received\": %" PRIu64 ", \"overrun\": %" PRIu32 "}\n", received, memory[SK_MEMINFO_DROPS]);
}

/* ---------------------------------------------------------------- ping */

struct probe {
    struct icmphdr header;              /* the kernel fills in identifier and checksum */
    uint32_t number;
    char padding[52];
};

/* Take every answer that is there. */
static void take_answers(int fd, const int64_t *left, double *round_trips, uint32_t sent)
{
    struct probe probe;
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec part = { &probe, sizeof probe };

    for (;;) {
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        if (recvmsg(fd, &message, MSG_DONTWAIT) < (ssize_t)sizeof probe)
            return;
        struct cmsghdr *stamp = CMSG_FIRSTHDR(&message);
        if (!stamp || stamp->cmsg_type != SCM_TIMESTAMPNS || probe.number >= sent)
            continue;
        struct timespec at;
        memcpy(&at, CMSG_DATA(stamp), sizeof at);
        if (round_trips[probe.number] < 0)
            round_trips[probe.number] = (at.tv_sec * SECOND + at.tv_nsec - left[probe.number]) / 1e3;
    }
}

static void ping(const char *device, const char *target, int64_t interval, double seconds)
{
    struct sockaddr_in to = address(target, 0);
    struct probe probe = { .header = { .type = ICMP_ECHO } };
    int fd = open_socket(IPPROTO_ICMP, device), one = 1;
    uint32_t count = seconds * SECOND / interval;
    if (!count || count > PROBES_MAX)
        errno = ERANGE, fail("%" PRIu32 " probes", count);
    int64_t *left = calloc(count, sizeof *left);
    double *round_trips = malloc(count * sizeof *round_trips);
    struct pollfd watched = { .fd = fd, .events = POLLIN };

    for (uint32_t i = 0; i < count; i++)
        round_trips[i] = -1;
    set_option(fd, SO_TIMESTAMPNS, &one, sizeof one);
    int64_t start = clock_ns(CLOCK_MONOTONIC), now;
    uint32_t sent = 0;
    while ((now = clock_ns(CLOCK_MONOTONIC)) < start + count * interval + STRAGGLERS_MS * 1000000LL) {
        if (sent < count && now >= start + sent * interval) {
            probe.number = sent;
            left[sent] = clock_ns(CLOCK_REALTIME);
            sendto(fd, &probe, sizeof probe, 0, (struct sockaddr *)&to, sizeof to);    /* refused is lost */
            sent++;
            continue;
        }
        int64_t wait = sent < count ? start + sent * interval - now : STRAGGLERS_MS * 1000000LL;
        struct timespec timeout = { .tv_sec = wait / SECOND, .tv_nsec = wait % SECOND };
        if (ppoll(&watched, 1, &timeout, NULL) > 0)
            take_answers(fd, left, round_trips, sent);
    }
    for (uint32_t i = 0; i < count; i++)
        printf(round_trips[i] < 0 ? "%snull" : "%s%.1f", i ? ", " : "[", round_trips[i]);
    puts("]");
}

int main(int argc, char **argv)
{
    if (argc == 8 && !strcmp(argv[1], "send"))
        send_load(argv[2], argv[3], atoi(argv[4]), strtoul(argv[5], NULL, 10), atof(argv[6]), atof(argv[7]));
    else if (argc == 3 && !strcmp(argv[1], "receive"))
        receive_load(atoi(argv[2]));
    else if (argc == 6 && !strcmp(argv[1], "ping"))
        ping(argv[2], argv[3], strtoll(argv[4], NULL, 10) * 1000, atof(argv[5]));
    else
        errno = EINVAL, fail("see the head of load.c");
    return 0;
}
