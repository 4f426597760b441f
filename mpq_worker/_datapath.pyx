# cython: language_level=3, boundscheck=False, wraparound=False
"""The native packet loop as Python sees it; `_datapath.pyi` says what each name does. The loop itself is native/*.c.

Nothing here releases the GIL: a worker has one thread.
"""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, itimerspec

import os


DROP_REASONS = (
    "not_ip", "local", "too_big", "no_path", "socket", "duplicate", "unopened", "empty", "unknown_context", "source",
    "unauthenticated", "tun", "limit",
)
ACKED, PHASE_CHANGED, FOREIGN_SOURCE, IN_FLIGHT = EVENT_ACK, EVENT_PHASE, EVENT_SOURCE, EVENT_FLIGHT
assert len(DROP_REASONS) == DROPS
QUEUE_LOW = LOW_QUEUE


cdef bytes copy(const uint8_t *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>length)


cdef const uint8_t *raw(bytes data):
    return <const uint8_t *>PyBytes_AsString(data)


cdef class Path:
    def __cinit__(self, Datapath datapath not None, *, size_t inner_mtu, size_t queue_bytes, double target,
                  double interval, uint64_t next_number, uint64_t delivered, double now):
        cdef limits bounds = limits(inner_mtu=inner_mtu, queue_bytes=queue_bytes, target=target, interval=interval)
        if not 0 < inner_mtu <= MAX_DATAGRAM - 256:
            raise ValueError("inner_mtu")
        self.datapath = datapath
        self.c = path_new(<void *>self, &bounds, next_number, delivered, now)
        if self.c is NULL:
            raise MemoryError
        datapath.members.add(self)

    def __dealloc__(self):
        if self.c is not NULL:
            path_free(self.c)

    # ------------------------------------------------------------------ keys and addresses

    def set_header_keys(self, int suite, bytes send not None, bytes receive not None):
        cdef suite_t which = <suite_t>suite
        if suite_key_size(which) == 0 or len(send) != suite_key_size(which) or len(receive) != len(send):
            raise ValueError("header keys")
        self.c.suite = which
        if (header_key_set(&self.c.send_header, which, raw(send)) < 0
                or header_key_set(&self.c.receive_header, which, raw(receive)) < 0):
            raise MemoryError

    cdef int install(self, packet_key *where, bytes secret, bytes iv, int sealing) except -1:
        if suite_key_size(self.c.suite) == 0 or len(secret) != suite_key_size(self.c.suite) or len(iv) != 12:
            raise ValueError("packet key")
        if packet_key_set(where, self.c.suite, raw(secret), raw(iv), sealing) < 0:
            raise MemoryError
        return 0

    def set_send_key(self, bytes secret not None, bytes iv not None, bint phase):
        batch_seal(&self.datapath.dp)
        self.install(&self.c.send, secret, iv, 1)
        self.c.send_phase = phase
        self.c.sealed = 0

    def set_receive_key(self, bytes secret not None, bytes iv not None, bint phase, int64_t phase_start):
        self.install(&self.c.current, secret, iv, 0)
        self.c.receive_phase = phase
        self.c.phase_start = phase_start

    def set_next_key(self, bytes secret not None, bytes iv not None):
        self.install(&self.c.next, secret, iv, 0)

    def advance_phase(self, uint64_t first_number, double now):
        if self.c.next.context is NULL:
            raise ValueError("no next key")
        path_advance(&self.datapath.dp, self.c, first_number, now)

    def set_peer(self, bytes cid not None, bytes reset_token not None, bytes remote not None):
        if len(cid) > MAX_CID or len(remote) > MAX_REMOTE or len(reset_token) not in (0, RESET_TOKEN):
            raise ValueError("peer")
        batch_seal(&self.datapath.dp)
        self.c.cid_length = len(cid)
        memcpy(self.c.cid, raw(cid), self.c.cid_length)
        self.c.has_reset_token = len(reset_token) == RESET_TOKEN
        memcpy(self.c.reset_token, raw(reset_token), len(reset_token))
        self.c.remote_length = len(remote)
        memcpy(self.c.remote, raw(remote), self.c.remote_length)
        path_set_mtu(self.c, self.c.inner_mtu)

    def allow(self, prefixes):
        """None: every source; else packed addresses and prefix lengths."""
        cdef key *allowed = NULL
        cdef list wanted = [] if prefixes is None else list(prefixes)
        if wanted:
            allowed = <key *>calloc(len(wanted), sizeof(key))
            if allowed is NULL:
                raise MemoryError
            try:
                for i, (address, bits) in enumerate(wanted):
                    allowed[i] = make_key(address, bits)
            except ValueError:
                free(allowed)
                raise
        free(self.c.allowed)
        self.c.allowed = allowed
        self.c.allowed_count = len(wanted)
        self.c.any_source = prefixes is None

    # ------------------------------------------------------------------ sending

    def send_message(self, bytes payload not None):
        if not 0 < len(payload) <= MAX_MESSAGE:
            raise ValueError("message")
        if self.c.message_count == MAX_MESSAGES:
            return False
        memcpy(self.c.messages[self.c.message_count], raw(payload), len(payload))
        self.c.message_length[self.c.message_count] = <uint8_t>len(payload)
        self.c.message_count += 1
        datapath_note(&self.datapath.dp, self.c, 0)
        return True

    def probe_mtu(self, size_t size, double now):
        """The number of the packet; -1 if none could be sent."""
        if not 64 <= size < MAX_DATAGRAM:
            raise ValueError("size")
        return path_probe(&self.datapath.dp, self.c, size, now)

    def configure(self, *, uint64_t window, double rate, uint64_t elsewhere, double ack_delay, double tell_delay,
                  double pto, double loss_delay):
        self.c.window, self.c.rate, self.c.elsewhere = window, rate, elsewhere
        self.c.ack_delay, self.c.tell_delay, self.c.pto, self.c.loss_delay = ack_delay, tell_delay, pto, loss_delay
        if path_waits(self.c):
            datapath_note(&self.datapath.dp, self.c, 0)

    @property
    def next_number(self):
        if self.datapath.dp.building is self.c:
            batch_seal(&self.datapath.dp)
        return self.c.sent.next

    def sent_elsewhere(self, uint64_t number, uint32_t size, double now):
        sent_elsewhere(&self.c.sent, number, size, now)

    def hand_over(self, Path successor not None):
        queue_move(&self.c.queue, &successor.c.queue)
        datapath_note(&successor.datapath.dp, successor.c, 0)

    @property
    def inner_mtu(self):
        return self.c.inner_mtu

    @inner_mtu.setter
    def inner_mtu(self, size_t value):
        if not 0 < value <= MAX_DATAGRAM - 256:
            raise ValueError("inner_mtu")
        batch_seal(&self.datapath.dp)
        path_set_mtu(self.c, value)

    # ------------------------------------------------------------------ what came

    def has_received(self, uint64_t number):
        return received_has(&self.c.received, number) != 0

    def note_received(self, uint64_t number, double now):
        """A packet that Python opened."""
        if <int64_t>number > self.c.received.largest:
            self.c.largest_at = now
        self.c.ack_gap |= received_add(&self.c.received, number)
        self.c.heard, self.c.asked = now, 0

    def acknowledge_soon(self, double now):
        self.c.unacked += 1
        if self.c.ack_at == 0:
            self.c.ack_at = now + self.c.ack_delay
        datapath_note(&self.datapath.dp, self.c, 0)

    def acknowledge(self, ranges, double delay, double now):
        """An ACK frame that Python read: ranges (low, high), inclusive, newest first."""
        for low, high in ranges:
            sent_acked(&self.c.sent, low, high, now)
        sent_settle(&self.c.sent, ranges[0][1], delay, self.c.loss_delay, now)
        datapath_note(&self.datapath.dp, self.c, EVENT_ACK)

    def detect_loss(self, double now):
        sent_detect_loss(&self.c.sent, self.c.loss_delay, now)
        datapath_note(&self.datapath.dp, self.c, EVENT_ACK)

    def take_ack(self):
        cdef ack_summary a = sent_take(&self.c.sent)
        filled, self.c.window_filled = self.c.window_filled, 0
        return (a.acked, a.acked_bytes, a.lost, a.lost_bytes, a.spurious, a.newest, a.token.delivered,
                a.token.delivered_time, a.token.first_sent_time, a.token.sent_time, bool(a.token.app_limited), a.rtt,
                a.delay, a.loss_time, bool(filled))

    def take_fates(self):
        fates = [(self.c.sent.notes[i] >> 1, bool(self.c.sent.notes[i] & 1)) for i in range(self.c.sent.note_count)]
        self.c.sent.note_count = 0
        return fates

    def take_foreign_source(self):
        self.c.foreign_told = 0
        return copy(self.c.foreign_source, self.c.foreign_size)

    # ------------------------------------------------------------------ state

    @property
    def largest_received(self):
        return self.c.received.largest

    @property
    def largest_acked(self):
        return self.c.sent.largest_acked

    @property
    def oldest_sent(self):
        return self.c.sent.oldest

    @property
    def large_lost(self):
        return self.c.sent.large_lost

    @property
    def bytes_in_flight(self):
        return self.c.sent.bytes

    @property
    def packets_in_flight(self):
        return self.c.sent.packets

    @property
    def last_sent(self):
        return self.c.sent.last

    @property
    def queued(self):
        return self.c.queue.bytes

    @property
    def queued_packets(self):
        return queue_packets(&self.c.queue)

    @property
    def waits(self):
        return path_waits(self.c) != 0

    @property
    def receive_phase(self):
        return self.c.receive_phase

    @property
    def phase_start(self):
        return self.c.phase_start

    @property
    def sealed(self):
        return self.c.sealed

    @property
    def opened(self):
        return self.c.opened

    @property
    def failed(self):
        return self.c.failed

    @property
    def first_received(self):
        return self.c.first

    @property
    def heard(self):
        return self.c.heard

    @property
    def asked(self):
        return self.c.asked or None

    @asked.setter
    def asked(self, value):
        self.c.asked = value or 0

    @property
    def drops(self):
        return self.c.queue.full_drops, self.c.queue.codel_drops

    @property
    def totals(self):
        return self.c.packets_in, self.c.bytes_in, self.c.packets_out, self.c.bytes_out


cdef key make_key(bytes address, unsigned bits) except *:
    if len(address) not in (4, 16) or bits > 8 * len(address):
        raise ValueError("address")
    return key_make(raw(address), len(address), bits)


cdef void transmit_bytes(datapath *dp) noexcept:
    """Into a list, in place of a socket."""
    cdef Datapath owner = <Datapath>dp.context
    cdef run_t *run
    cdef size_t at
    for i in range(dp.run_count):
        run = &dp.runs[i]
        at = 0
        while at < run.length:
            owner.datagrams.append((<Path>run.path.owner, copy(dp.out + run.offset + at, min(run.segment, run.length - at))))
            at += run.segment
    datapath_sent(dp)


cdef void emit_bytes(void *context, const vnet *header, const iovec *parts, int count) noexcept:
    """Into a list, in place of a TUN: the virtio header, then the packet."""
    cdef bytes frame = copy(<const uint8_t *>header, VNET_HEADER)
    for i in range(count):
        frame += copy(<const uint8_t *>parts[i].iov_base, parts[i].iov_len)
    (<Datapath>context).frames.append(frame)


cdef class Datapath:
    def __cinit__(self, *, bint hub):
        self.members, self.datagrams, self.frames = set(), [], []
        if datapath_begin(&self.dp, hub, transmit_bytes, emit_bytes, <void *>self) < 0:
            raise MemoryError

    def __dealloc__(self):
        datapath_end(&self.dp)
        if self.attached:
            io_end(&self.io)

    # ------------------------------------------------------------------ who is who

    cdef int check(self, Path path) except -1:
        """The loop holds no path that nobody keeps alive."""
        if path is not None and path not in self.members:
            raise ValueError("a path that was removed")
        return 0

    def bind(self, bytes cid not None, Path path not None):
        cdef key k
        self.check(path)
        if len(cid) == CID_LENGTH:
            k = key_make(raw(cid), CID_LENGTH, 8 * CID_LENGTH)
            if table_set(&self.dp.paths, &k, path.c) < 0:
                raise MemoryError

    def unbind(self, bytes cid not None):
        cdef key k
        if len(cid) == CID_LENGTH:
            k = key_make(raw(cid), CID_LENGTH, 8 * CID_LENGTH)
            table_remove(&self.dp.paths, &k)

    def route(self, bytes address not None, unsigned bits, Path path):
        cdef key k = make_key(address, bits)
        self.check(path)
        if datapath_route(&self.dp, &k, NULL if path is None else path.c) < 0:
            raise MemoryError

    def use(self, Path path):
        self.check(path)
        self.dp.only = NULL if path is None else path.c

    def remove(self, Path path not None):
        if path in self.members:
            datapath_forget(&self.dp, path.c)
            self.members.discard(path)

    # ------------------------------------------------------------------ descriptors

    def attach(self, int tun, int udp):
        if not self.attached:
            if io_begin(&self.io, &self.dp) < 0:
                raise MemoryError
            self.attached = True
        cdef int result = io_use_tun(&self.io, tun)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        io_use_udp(&self.io, udp)

    def use_udp(self, int fd):
        io_use_udp(&self.io, fd)

    @property
    def features(self):
        cdef features_t *f = &self.io.features
        names = {"vnet": f.vnet, "tso": f.tso, "uso": f.uso, "udp_segment": f.udp_segment, "udp_gro": f.udp_gro}
        return tuple(name for name, there in names.items() if there)

    def fileno(self):
        return self.io.poll

    @property
    def now(self):
        return self.dp.now

    def may_read(self, bint may_read):
        io_may_read(&self.io, may_read)

    def wake(self):
        cdef int result = io_wake(&self.io)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result != 0

    # ------------------------------------------------------------------ bytes

    def offload(self, *, bint tcp, bint udp):
        self.dp.coalescer.tcp, self.dp.coalescer.udp = tcp, udp

    def frame(self, bytes data not None, double now, bytes header=b""):
        cdef vnet said
        memset(&said, 0, sizeof(vnet))
        if header:
            if len(header) != VNET_HEADER:
                raise ValueError("header")
            memcpy(&said, raw(header), VNET_HEADER)
        datapath_frame(&self.dp, &said, raw(data), len(data), now)

    def datagram(self, bytes data not None, double now, bytes remote=b"", size_t segment=0):
        """Returns the parts of it that are not for the native loop."""
        datapath_datagrams(&self.dp, raw(data), len(data), segment, raw(remote), len(remote), now)
        return [data for data, _ in self.take_foreign()]

    def take_datagrams(self):
        taken, self.datagrams = self.datagrams, []
        return taken

    def take_frames(self):
        taken, self.frames = self.frames, []
        return taken

    # ------------------------------------------------------------------ what is for Python

    def take_foreign(self):
        cdef foreign_t *f
        taken = []
        for i in range(self.dp.foreign_count):
            f = &self.dp.foreign[i]
            taken.append((copy(f.data, f.length), copy(f.remote, f.remote_length)))
        self.dp.foreign_count = 0
        return taken

    def take_other(self):
        taken = []
        for i in range(self.dp.other_count):
            taken.append((<Path>self.dp.other[i].path.owner, copy(self.dp.other[i].data, self.dp.other[i].length)))
        self.dp.other_count = 0
        return taken

    def take_too_big(self):
        taken = []
        for i in range(self.dp.too_big_count):
            taken.append((copy(self.dp.too_big[i].data, self.dp.too_big[i].length), self.dp.too_big[i].mtu))
        self.dp.too_big_count = 0
        return taken

    def take_events(self):
        cdef path_t *path
        taken = []
        for i in range(self.dp.busy_count):
            path = self.dp.busy[i]
            if path.events:
                taken.append((<Path>path.owner, path.events))
                path.events = 0
                path.event_at = 0
        self.dp.attention = 0
        return taken

    def flush(self, double now):
        if self.attached:
            io_flush(&self.io)
        else:
            datapath_flush(&self.dp, now)

    def deadline(self):
        return None if self.attached else datapath_deadline(&self.dp) or None

    def count(self, reason, unsigned number=1):
        self.dp.drops[DROP_REASONS.index(reason)] += number

    def drops(self):
        full, codel = self.dp.gone_full, self.dp.gone_codel
        for path in self.members:
            full += (<Path>path).c.queue.full_drops
            codel += (<Path>path).c.queue.codel_drops
        counted = {reason: self.dp.drops[i] for i, reason in enumerate(DROP_REASONS)}
        return counted | {"queue_full": full, "codel": codel}

    @property
    def totals(self):
        return self.dp.packets_in, self.dp.bytes_in, self.dp.packets_out, self.dp.bytes_out


cdef class Timer:
    def __cinit__(self):
        self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0:
            raise OSError("timerfd_create")

    def __dealloc__(self):
        if self.fd >= 0:
            os.close(self.fd)

    def fileno(self):
        return self.fd

    def set(self, deadline):
        """When it becomes readable, by time.monotonic(); None: never."""
        cdef itimerspec when
        cdef double at
        memset(&when, 0, sizeof(itimerspec))
        if deadline is not None:
            at = max(1e-9, deadline)
            when.it_value.tv_sec = <long>at
            when.it_value.tv_nsec = <long>((at - <long>at) * 1e9)
        timerfd_settime(self.fd, TFD_TIMER_ABSTIME, &when, NULL)

    def clear(self):
        """Call when it was readable."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass


def plain_tun(int fd):
    cdef int result = io_plain_tun(fd)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result != 0


def segment(bytes frame not None):
    """The IP packets of a frame, virtio header first; None if the two do not fit together."""
    cdef segments s
    cdef vnet said
    cdef uint8_t packet[65536]
    cdef size_t size
    if not VNET_HEADER < len(frame) <= VNET_HEADER + MAX_DATAGRAM:
        return None
    memcpy(&said, raw(frame), VNET_HEADER)
    if segments_begin(&s, &said, raw(frame) + VNET_HEADER, len(frame) - VNET_HEADER) < 0:
        return None
    packets = []
    while (size := segments_peek(&s)) != 0:
        segments_next(&s, packet)
        packets.append(copy(packet, size))
    return packets
