/*
 * copy: a tunnel that does nothing but carry, the floor of what a TUN and a UDP socket allow.
 *
 *     copy DEVICE LOCAL REMOTE PORT
 *
 * It makes the TUN, prints "ready" and runs until it is killed. No crypto, no acknowledgements, no congestion control;
 * but all that the kernel offers to move many packets per system call, and only packets of the TUN's MTU on the wire,
 * each with its own valid checksum, as any tunnel must make them:
 *
 *     TUN read (virtio_net_hdr, TSO, USO) -> segment, finish checksums -> one sendmsg with UDP_SEGMENT
 *     recvmsg with UDP_GRO -> verify checksums, join what TSO/USO could have cut -> one TUN write (virtio_net_hdr)
 *
 * What cannot be joined goes to the TUN as it came.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    PACKET_MAX = 65535,
    SEGMENTS = 64,                /* UDP_MAX_SEGMENTS of older kernels */
    GSO_BYTES = 65507,
    BUDGET = 64,                  /* packets or batches per wake-up and direction */
    SOCKET_BYTES = 8 << 20,
    FIN = 0x01, PSH = 0x08, ACK = 0x10, CWR = 0x80,
};
#ifndef TUN_F_USO4                /* headers before Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

static int tun, net;
static bool joins_udp;            /* the kernel takes joined UDP */

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* ---------------------------------------------------------------- checksums (RFC 1071) */

static uint64_t sum(const void *data, size_t size, uint64_t total)
{
    const uint8_t *at = data;
    uint32_t word;
    uint16_t half;
    for (; size >= 4; size -= 4, at += 4) {
        memcpy(&word, at, 4);
        total += word;
    }
    if (size >= 2) {
        memcpy(&half, at, 2);
        total += half;
        size -= 2, at += 2;
    }
    return size ? total + *at : total;      /* little-endian: the last byte is the first of its pair */
}

static uint16_t fold(uint64_t total)
{
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return total;
}

/* ---------------------------------------------------------------- a packet's headers */

struct parsed {
    uint8_t *ip, *transport;
    size_t size;                  /* of the whole packet */
    size_t head;                  /* IP and transport header together */
    uint8_t protocol;
    bool six;
};

/* True if it is TCP or UDP straight after a plain IP header, whole, and of the length it says. */
static bool parse(uint8_t *packet, size_t size, struct parsed *p)
{
    *p = (struct parsed){ .ip = packet, .size = size, .six = size && packet[0] >> 4 == 6 };
    if (p->six) {
        struct ipv6hdr *ip = (void *)packet;
        if (size < sizeof *ip || ntohs(ip->payload_len) + sizeof *ip != size)
            return false;
        p->protocol = ip->nexthdr;
        p->transport = packet + sizeof *ip;
    } else {
        struct iphdr *ip = (void *)packet;
        if (size < sizeof *ip || packet[0] != 0x45 || ntohs(ip->tot_len) != size || ip->frag_off & htons(0x3fff))
            return false;
        p->protocol = ip->protocol;
        p->transport = packet + sizeof *ip;
    }
    size_t left = size - (p->transport - packet);
    size_t length = 0;
    if (p->protocol == IPPROTO_TCP && left >= sizeof(struct tcphdr))
        length = (p->transport[12] >> 4) * 4;
    else if (p->protocol == IPPROTO_UDP && left >= sizeof(struct udphdr))
        length = sizeof(struct udphdr);
    p->head = p->transport - packet + length;
    return length >= sizeof(struct udphdr) && p->head <= size;
}

static uint64_t pseudo_header(const struct parsed *p, size_t size)
{
    size_t transport = size - (p->transport - p->ip);
    return sum(p->six ? p->ip + 8 : p->ip + 12, p->six ? 32 : 8, htons(transport) + htons(p->protocol));
}

static uint16_t *checksum_field(const struct parsed *p)
{
    return (uint16_t *)(p->transport + (p->protocol == IPPROTO_TCP ? 16 : 6));
}

/* Lengths of the IP and UDP headers, and the IPv4 checksum, of a packet that is now `size` long. */
static void set_length(const struct parsed *p, size_t size)
{
    if (p->six) {
        ((struct ipv6hdr *)p->ip)->payload_len = htons(size - sizeof(struct ipv6hdr));
    } else {
        struct iphdr *ip = (void *)p->ip;
        ip->tot_len = htons(size);
        ip->check = 0;
        ip->check = ~fold(sum(ip, sizeof *ip, 0));
    }
    if (p->protocol == IPPROTO_UDP)
        ((struct udphdr *)p->transport)->len = htons(size - (p->transport - p->ip));
}

static void set_checksum(const struct parsed *p, size_t size)
{
    *checksum_field(p) = 0;
    uint16_t value = ~fold(sum(p->transport, size - (p->transport - p->ip), pseudo_header(p, size)));
    *checksum_field(p) = value || p->protocol == IPPROTO_TCP ? value : 0xffff;
}

/* ---------------------------------------------------------------- out: TUN to network */

static struct {
    uint8_t data[GSO_BYTES];
    size_t used, segment, last;
    int count;
} batch;

static void send_batch(void)
{
    char control[CMSG_SPACE(sizeof(uint16_t))] = { 0 };
    struct iovec part = { batch.data, batch.used };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (batch.count > 1) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        uint16_t segment = batch.segment;
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(c), &segment, sizeof segment);
    }
    if (batch.count)
        (void)!sendmsg(net, &message, 0);       /* no room: lost, as any packet may be */
    batch.used = batch.count = 0;
}

/* Room for one more packet of `size` in the batch; all of one batch but the last are of one size. */
static uint8_t *reserve(size_t size)
{
    if (batch.count && (batch.count == SEGMENTS || batch.used + size > GSO_BYTES || size > batch.segment
                        || batch.last != batch.segment))
        send_batch();
    if (!batch.count)
        batch.segment = size;
    uint8_t *room = batch.data + batch.used;
    batch.used += size, batch.last = size, batch.count++;
    return room;
}

static void segment_packet(const struct parsed *p, size_t mss)
{
    size_t total = p->size - p->head;
    for (size_t offset = 0, i = 0; offset < total; offset += mss, i++) {
        size_t part = total - offset < mss ? total - offset : mss, size = p->head + part;
        uint8_t *room = reserve(size);
        struct parsed q = *p;
        memcpy(room, p->ip, p->head);
        memcpy(room + p->head, p->ip + p->head + offset, part);
        q.ip = room;
        q.transport = room + (p->transport - p->ip);
        if (!q.six)
            ((struct iphdr *)q.ip)->id = htons(ntohs(((struct iphdr *)q.ip)->id) + i);
        set_length(&q, size);
        if (q.protocol == IPPROTO_TCP) {
            struct tcphdr *tcp = (void *)q.transport;
            tcp->seq = htonl(ntohl(tcp->seq) + offset);
            if (i)
                q.transport[13] &= ~CWR;
            if (offset + part < total)
                q.transport[13] &= ~(FIN | PSH);
        }
        set_checksum(&q, size);
    }
}

static bool from_tun(void)
{
    static struct {
        struct virtio_net_hdr v;
        uint8_t packet[PACKET_MAX];
    } __attribute__((packed)) in;
    ssize_t got = read(tun, &in, sizeof in);
    if (got <= (ssize_t)sizeof in.v)
        return false;
    size_t size = got - sizeof in.v;
    struct parsed p;
    if (in.v.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        if (parse(in.packet, size, &p) && in.v.gso_size)
            segment_packet(&p, in.v.gso_size);
        return true;
    }
    if (in.v.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && in.v.csum_start + in.v.csum_offset + 2u <= size) {
        uint16_t value = ~fold(sum(in.packet + in.v.csum_start, size - in.v.csum_start, 0));
        value = value ? value : 0xffff;
        memcpy(in.packet + in.v.csum_start + in.v.csum_offset, &value, sizeof value);
    }
    if (size <= GSO_BYTES)
        memcpy(reserve(size), in.packet, size);
    return true;
}

/* ---------------------------------------------------------------- in: network to TUN */

static struct {
    struct parsed first;
    struct iovec parts[SEGMENTS + 2];
    size_t size, mss;
    int count;                    /* packets in it */
    bool closed;                  /* a short or pushed segment was the last */
} run;

static void write_run(void)
{
    struct virtio_net_hdr v = { 0 };
    struct parsed *p = &run.first;
    if (!run.count)
        return;
    if (run.count > 1) {
        bool tcp = p->protocol == IPPROTO_TCP;
        v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        v.gso_type = !tcp ? VIRTIO_NET_HDR_GSO_UDP_L4 : p->six ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
        v.hdr_len = p->head;
        v.gso_size = run.mss;
        v.csum_start = p->transport - p->ip;
        v.csum_offset = tcp ? 16 : 6;
        set_length(p, run.size);
        *checksum_field(p) = fold(pseudo_header(p, run.size));
    }
    run.parts[0] = (struct iovec){ &v, sizeof v };
    (void)!writev(tun, run.parts, run.count + 1);
    run.count = 0;
}

/* Whether a kernel that cut the joined packet again would make exactly this one of it. */
static bool follows(const struct parsed *p)
{
    const struct parsed *f = &run.first;
    size_t payload = p->size - p->head, at = f->transport - f->ip;
    if (!run.count || run.closed || run.count == SEGMENTS || p->six != f->six || p->protocol != f->protocol
        || p->head != f->head || !payload || payload > run.mss || run.size + payload > PACKET_MAX)
        return false;
    if (p->six) {
        if (memcmp(p->ip, f->ip, 4) || memcmp(p->ip + 6, f->ip + 6, at - 6))
            return false;
    } else {
        const struct iphdr *a = (void *)f->ip, *b = (void *)p->ip;
        bool in_order = ntohs(b->id) == (uint16_t)(ntohs(a->id) + run.count);
        if (a->tos != b->tos || a->ttl != b->ttl || a->frag_off != b->frag_off || !in_order
            || memcmp(&a->saddr, &b->saddr, 8))
            return false;
    }
    if (memcmp(f->transport, p->transport, 4))
        return false;
    if (p->protocol == IPPROTO_UDP)
        return true;
    const struct tcphdr *a = (void *)f->transport, *b = (void *)p->transport;
    return ntohl(b->seq) == ntohl(a->seq) + (run.size - f->head) && a->ack_seq == b->ack_seq && a->window == b->window
           && (p->transport[13] & ~PSH) == ACK && !memcmp(a + 1, b + 1, f->head - at - sizeof *a);
}

/* Whether it may be the first of several: data, no unusual flag, a right checksum. */
static bool may_join(const struct parsed *p)
{
    if (p->size == p->head || (p->protocol == IPPROTO_TCP && (p->transport[13] & ~PSH) != ACK))
        return false;
    if (p->protocol == IPPROTO_UDP && (!joins_udp || !*checksum_field(p)))
        return false;
    return fold(sum(p->transport, p->size - (p->transport - p->ip), pseudo_header(p, p->size))) == 0xffff;
}

static void to_tun(uint8_t *packet, size_t size)
{
    struct parsed p;
    bool joinable = parse(packet, size, &p) && may_join(&p);
    if (joinable && follows(&p)) {
        run.parts[++run.count] = (struct iovec){ p.ip + p.head, p.size - p.head };
        run.size += p.size - p.head;
    } else {
        write_run();
        run.first = p;
        run.parts[1] = (struct iovec){ packet, size };
        run.size = size, run.count = 1, run.mss = joinable ? p.size - p.head : 0;
    }
    bool pushed = joinable && p.protocol == IPPROTO_TCP && p.transport[13] & PSH;
    run.closed = !joinable || pushed || p.size - p.head < run.mss;
    if (pushed && run.count > 1)
        run.first.transport[13] |= PSH;     /* segmentation leaves it to the last */
}

static bool from_net(void)
{
    static uint8_t data[PACKET_MAX];
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = { data, sizeof data };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    ssize_t got = recvmsg(net, &message, 0);
    if (got < 0)
        return errno != EAGAIN;             /* an ICMP error of an earlier datagram */
    size_t segment = got;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            segment = size;
        }
    for (size_t at = 0; at < (size_t)got; at += segment)
        to_tun(data + at, got - at < segment ? got - at : segment);
    write_run();
    return true;
}

/* ---------------------------------------------------------------- set up */

static int open_tun(const char *device)
{
    struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
        fail(device);
    unsigned offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    joins_udp = !ioctl(fd, TUNSETOFFLOAD, offload | TUN_F_USO4 | TUN_F_USO6);
    if (!joins_udp && ioctl(fd, TUNSETOFFLOAD, offload))
        fail("TUNSETOFFLOAD");
    return fd;
}

static int open_net(const char *local, const char *remote, int port)
{
    struct sockaddr_in near = { .sin_family = AF_INET, .sin_port = htons(port) }, far = near;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), one = 1, bytes = SOCKET_BYTES;
    if (inet_pton(AF_INET, local, &near.sin_addr) != 1 || inet_pton(AF_INET, remote, &far.sin_addr) != 1)
        fail("address");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    if (fd < 0 || bind(fd, (void *)&near, sizeof near) || connect(fd, (void *)&far, sizeof far)
        || setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one))
        fail("UDP socket");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    tun = open_tun(argv[1]);
    net = open_net(argv[2], argv[3], atoi(argv[4]));
    puts("ready");
    fflush(stdout);
    struct pollfd watched[2] = { { .fd = tun, .events = POLLIN }, { .fd = net, .events = POLLIN } };
    while (poll(watched, 2, -1) >= 0) {
        if (watched[0].revents) {
            for (int i = 0; i < BUDGET && from_tun(); i++)
                ;
            send_batch();
        }
        if (watched[1].revents)
            for (int i = 0; i < BUDGET && from_net(); i++)
                ;
    }
    fail("poll");
}
