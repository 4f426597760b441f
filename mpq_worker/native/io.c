#define _GNU_SOURCE
#include "io.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

union control { /* room for a packet-info and a segment size, aligned */
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static void transmit(struct datapath *dp);
static void write_tun(void *context, const struct vnet *vnet, const struct iovec *parts, int count);
static int read_tun(struct io *io);
static void read_udp(struct io *io);

static double clock_now(void) { /* Python's time.monotonic() */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void watch(struct io *io, int operation, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(io->poll, operation, fd, &event);
}

int io_begin(struct io *io, struct datapath *dp) {
    memset(io, 0, sizeof *io);
    io->dp = dp;
    io->tun = io->udp = -1;
    io->frame = malloc(VNET_HEADER + MAX_DATAGRAM);
    io->received = malloc((size_t)RECEIVE_MESSAGES * MAX_DATAGRAM);
    io->poll = epoll_create1(EPOLL_CLOEXEC);
    io->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!io->frame || !io->received || io->poll < 0 || io->timer < 0) {
        io_end(io);
        return -1;
    }
    watch(io, EPOLL_CTL_ADD, io->timer);
    dp->context = dp->coalescer.context = io;
    dp->transmit = transmit;
    dp->coalescer.emit = write_tun;
    return 0;
}

void io_end(struct io *io) {
    free(io->frame);
    free(io->received);
    io->frame = io->received = NULL;
    close(io->poll);
    close(io->timer);
}

int io_use_tun(struct io *io, int fd) {
    struct ifreq request = {0};
    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return -errno;
    struct features *f = &io->features;
    f->vnet = (request.ifr_flags & IFF_VNET_HDR) != 0;
    unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    f->uso = f->vnet && ioctl(fd, TUNSETOFFLOAD, (unsigned long)(tcp | TUN_F_USO4 | TUN_F_USO6)) == 0;
    f->tso = f->uso || (f->vnet && ioctl(fd, TUNSETOFFLOAD, (unsigned long)tcp) == 0);
    io->tun = fd;
    io->dp->coalescer.tcp = f->tso;
    io->dp->coalescer.udp = f->uso;
    return 0;
}

int io_plain_tun(int fd) {
    struct ifreq request = {0};
    if (ioctl(fd, TUNGETIFF, &request) < 0 || ioctl(fd, TUNSETOFFLOAD, 0UL) < 0)
        return -errno;
    return (request.ifr_flags & IFF_VNET_HDR) != 0;
}

void io_use_udp(struct io *io, int fd) {
    int zero = 0, one = 1;
    io->features.udp_segment = setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &zero, sizeof zero) == 0;
    io->features.udp_gro = setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one) == 0;
    if (io->udp >= 0)
        watch(io, EPOLL_CTL_DEL, io->udp); /* closing it may not be the end of it: the supervisor has it too */
    io->udp = fd;
    watch(io, EPOLL_CTL_ADD, fd);
}

/* ------------------------------------------------------------------ a wake-up */

/* The timer may be early: who has nothing to do then sets it anew. */
static void set_timer(struct io *io) {
    double at = datapath_deadline(io->dp);
    if (at == 0 || (io->timer_at != 0 && io->timer_at <= at))
        return;
    struct itimerspec when = {.it_value = {(time_t)at, (long)((at - (double)(time_t)at) * 1e9)}};
    io->timer_at = at;
    timerfd_settime(io->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void set_reading(struct io *io) {
    const struct path *only = io->dp->only;
    int wanted = io->may_read && !(only && only->queue.bytes >= QUEUE_LOW);
    if (wanted != io->reading)
        watch(io, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, io->tun);
    io->reading = wanted;
}

void io_may_read(struct io *io, int may_read) {
    io->may_read = may_read;
    set_reading(io);
}

static void arm(struct io *io) {
    set_timer(io);
    set_reading(io);
}

void io_flush(struct io *io) {
    datapath_flush(io->dp, clock_now());
    arm(io);
}

int io_wake(struct io *io) {
    struct epoll_event ready[3];
    uint64_t expirations;
    int result = 0;
    int count = epoll_wait(io->poll, ready, 3, 0);
    for (int i = 0; i < count; i++) {
        int fd = ready[i].data.fd;
        if (fd == io->udp)
            read_udp(io);
        else if (fd == io->tun)
            result = read_tun(io);
        else if (read(fd, &expirations, sizeof expirations) > 0)
            io->timer_at = 0;
    }
    datapath_flush(io->dp, clock_now());
    if (result == 0)
        result = datapath_asks(io->dp);
    if (result == 0)
        arm(io);
    return result;
}

/* ------------------------------------------------------------------ TUN */

/* No more than the budget, nor once a site's path waits. 0, or -errno. */
static int read_tun(struct io *io) {
    struct datapath *dp = io->dp;
    size_t header = io->features.vnet ? VNET_HEADER : 0, bytes = TUN_BYTES;
    double now = clock_now();
    for (int frames = 0; frames < TUN_FRAMES; frames++) {
        ssize_t n = read(io->tun, io->frame, header + MAX_DATAGRAM);
        if (n < 0 && errno != EINTR)
            return errno == EAGAIN ? 0 : -errno;
        if (n < 0)
            continue;
        struct vnet vnet = {0};
        memcpy(&vnet, io->frame, (size_t)n < header ? 0 : header);
        if ((size_t)n > header)
            datapath_frame(dp, &vnet, io->frame + header, (size_t)n - header, now);
        if (bytes <= (size_t)n || (dp->only && path_waits(dp->only)))
            return 0;
        bytes -= (size_t)n;
    }
    return 0;
}

static void write_tun(void *context, const struct vnet *vnet, const struct iovec *parts, int count) {
    struct io *io = context;
    struct iovec all[1 + COALESCE_PARTS];
    int first = !io->features.vnet;
    all[0] = (struct iovec){(void *)vnet, VNET_HEADER};
    memcpy(all + 1, parts, (size_t)count * sizeof *parts);
    if (writev(io->tun, all + first, count + 1 - first) < 0) /* EIO: interface down; EINVAL: no packet to the kernel */
        io->dp->drops[DROP_TUN] += (uint64_t)count;
}

/* ------------------------------------------------------------------ UDP, in */

static size_t address_size(const struct sockaddr *address) {
    return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* The size of each datagram in a message (0: there is one), and the address it came to, appended to `remote`. */
static size_t read_control(struct msghdr *message, uint8_t *remote, size_t *remote_length) {
    size_t segment = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        const uint8_t *data = CMSG_DATA(c);
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int value;
            memcpy(&value, data, sizeof value);
            segment = value > 0 ? (size_t)value : 0;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(remote + *remote_length, data + offsetof(struct in_pktinfo, ipi_addr), 4);
            *remote_length += 4;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(remote + *remote_length, data + offsetof(struct in6_pktinfo, ipi6_addr), 16);
            *remote_length += 16;
        }
    }
    return segment;
}

/* One round of messages. */
static void read_udp(struct io *io) {
    struct mmsghdr messages[RECEIVE_MESSAGES] = {0};
    struct iovec parts[RECEIVE_MESSAGES];
    union control controls[RECEIVE_MESSAGES];
    int named = io->dp->hub;
    for (int i = 0; i < RECEIVE_MESSAGES; i++) {
        parts[i] = (struct iovec){io->received + (size_t)i * MAX_DATAGRAM, MAX_DATAGRAM};
        struct msghdr *m = &messages[i].msg_hdr;
        *m = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        m->msg_name = named ? io->remotes[i] : NULL;
        m->msg_namelen = named ? sizeof(struct sockaddr_in6) : 0;
        m->msg_control = controls[i].bytes;
        m->msg_controllen = sizeof controls[i].bytes;
    }
    int count = recvmmsg(io->udp, messages, RECEIVE_MESSAGES, MSG_DONTWAIT, NULL);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        io->dp->drops[DROP_SOCKET]++; /* an ICMP error of an earlier datagram (ECONNREFUSED, EHOSTUNREACH): silence says it too */
    double now = clock_now();
    for (int i = 0; i < count; i++) {
        struct msghdr *m = &messages[i].msg_hdr;
        size_t remote_length = named ? m->msg_namelen : 0;
        size_t segment = read_control(m, io->remotes[i], &remote_length);
        datapath_datagrams(io->dp, parts[i].iov_base, messages[i].msg_len, segment, io->remotes[i],
                           named ? remote_length : 0, now);
    }
}

/* ------------------------------------------------------------------ UDP, out */

static void add_control(struct msghdr *m, int level, int type, const void *data, size_t size) {
    struct cmsghdr *c = (struct cmsghdr *)((char *)m->msg_control + m->msg_controllen);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(c), data, size);
    m->msg_controllen += CMSG_SPACE(size);
}

/* Where a run goes, and from which address. */
static void address(struct msghdr *m, const struct path *path) {
    if (!path->remote_length)
        return;
    struct sockaddr *name = (struct sockaddr *)path->remote;
    const uint8_t *local = path->remote + address_size(name);
    m->msg_name = name;
    m->msg_namelen = (socklen_t)address_size(name);
    if (name->sa_family == AF_INET6) {
        struct in6_pktinfo info = {0};
        memcpy(&info.ipi6_addr, local, 16);
        add_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    } else {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, local, 4);
        add_control(m, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    }
}

/* Sends one message; once more if what failed was the report of an earlier one's ICMP error. */
static int send_one(struct io *io, const struct msghdr *m) {
    for (int tries = 0;; tries++) {
        if (sendmsg(io->udp, m, MSG_DONTWAIT) >= 0)
            return 0;
        if (tries || errno == EAGAIN || errno == EMSGSIZE || errno == EINVAL || errno == EIO)
            return -errno;
    }
}

static void send_singly(struct io *io, struct msghdr *m, const struct run *run) {
    uint8_t *data = io->dp->out + run->offset;
    for (size_t at = 0; at < run->length; at += run->segment) {
        struct iovec part = {data + at, run->length - at < run->segment ? run->length - at : run->segment};
        m->msg_iov = &part;
        if (send_one(io, m) < 0)
            io->dp->drops[DROP_SOCKET]++;
    }
}

static void send_run(struct io *io, const struct run *run) {
    union control control = {0};
    struct iovec part = {io->dp->out + run->offset, run->length};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
    address(&m, run->path);
    size_t plain = m.msg_controllen;
    uint16_t segment = (uint16_t)run->segment;
    if (run->length > run->segment) {
        if (!io->features.udp_segment) {
            send_singly(io, &m, run);
            return;
        }
        add_control(&m, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
    int result = send_one(io, &m);
    if (result == 0)
        return;
    if (run->length > run->segment && (result == -EIO || result == -EINVAL || result == -EMSGSIZE)) {
        io->features.udp_segment = result != -EIO; /* EIO: an interface without checksum offload */
        m.msg_controllen = plain;
        send_singly(io, &m, run);
        return;
    }
    io->dp->drops[DROP_SOCKET] += (run->length + run->segment - 1) / run->segment;
}

static void transmit(struct datapath *dp) {
    struct io *io = dp->context;
    for (unsigned i = 0; i < dp->run_count; i++)
        send_run(io, &dp->runs[i]);
    datapath_sent(dp);
}
