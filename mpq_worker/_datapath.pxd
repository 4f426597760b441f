"""What the native loop's headers declare, and the fields of the module's classes."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from posix.time cimport itimerspec


cdef extern from "<sys/timerfd.h>":
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, itimerspec *new, itimerspec *old)
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME

cdef extern from "<sys/uio.h>":
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "native/segment.h":
    enum: VNET_HEADER
    struct vnet:
        pass
    struct segments:
        pass
    int segments_begin(segments *s, const vnet *header, const uint8_t *packet, size_t length)
    size_t segments_peek(const segments *s)
    void segments_next(segments *s, uint8_t *out)

cdef extern from "native/aead.h":
    enum suite_t "suite":
        pass
    enum: TAG
    struct packet_key:
        void *context
    struct header_key:
        pass
    size_t suite_key_size(suite_t suite)
    int packet_key_set(packet_key *key, suite_t suite, const uint8_t *secret, const uint8_t *iv, int sealing)
    int header_key_set(header_key *key, suite_t suite, const uint8_t *secret)

cdef extern from "native/received.h":
    struct received:
        int64_t largest
    int received_has(const received *r, uint64_t number)
    int received_add(received *r, uint64_t number)

cdef extern from "native/sent.h":
    struct token:
        double sent_time, delivered_time, first_sent_time
        uint64_t delivered
        int app_limited
    struct ack_summary:
        uint64_t acked, acked_bytes, lost, lost_bytes, spurious
        int64_t newest
        token token
        double rtt, delay, loss_time
    struct sent:
        uint64_t oldest, next, bytes, packets, delivered, count
        int64_t largest_acked
        unsigned large_lost
        double last
        uint64_t notes[128]
        unsigned note_count
    void sent_elsewhere(sent *s, uint64_t number, uint32_t size, double now)
    void sent_acked(sent *s, uint64_t low, uint64_t high, double now)
    void sent_settle(sent *s, uint64_t largest, double delay, double loss_delay, double now)
    void sent_detect_loss(sent *s, double loss_delay, double now)
    ack_summary sent_take(sent *s)

cdef extern from "native/table.h":
    struct key:
        pass
    struct table:
        pass
    key key_make(const uint8_t *bytes, size_t size, unsigned prefix)
    int table_set(table *t, const key *key, void *value)
    void table_remove(table *t, const key *key)

cdef extern from "native/queue.h":
    struct queue:
        size_t bytes
        uint64_t full_drops, codel_drops
    size_t queue_packets(const queue *q)
    void queue_move(queue *source, queue *to)

cdef extern from "native/path.h":
    enum: CID_LENGTH, MAX_CID, MAX_REMOTE, MAX_MESSAGES, MAX_MESSAGE, RESET_TOKEN
    enum: EVENT_ACK, EVENT_PHASE, EVENT_SOURCE, EVENT_FLIGHT
    struct limits:
        size_t inner_mtu, queue_bytes
        double target, interval
    struct path_t "path":
        void *owner
        int index
        unsigned events
        double event_at, tell_delay
        suite_t suite
        header_key send_header, receive_header
        packet_key send, current, next
        int send_phase, receive_phase
        int64_t phase_start, first
        uint64_t sealed, opened, failed, elsewhere, window
        uint8_t reset_token[16]
        int has_reset_token, any_source, window_filled, foreign_told
        uint8_t cid[20]
        size_t cid_length
        uint8_t remote[48]
        size_t remote_length
        received received
        double heard, asked, ack_at, ack_delay, rate, pto, loss_delay
        unsigned unacked
        int ack_gap
        double largest_at
        sent sent
        queue queue
        uint8_t messages[8][64]
        uint8_t message_length[8]
        unsigned message_count
        size_t inner_mtu, payload
        key *allowed
        size_t allowed_count
        uint8_t foreign_source[16]
        size_t foreign_size
        uint64_t packets_in, bytes_in, packets_out, bytes_out
    path_t *path_new(void *owner, const limits *limits, uint64_t next, uint64_t delivered, double now)
    void path_free(path_t *path)
    void path_set_mtu(path_t *path, size_t inner_mtu)
    int path_waits(const path_t *path)

cdef extern from "native/coalesce.h":
    struct coalescer:
        int tcp, udp

cdef extern from "native/datapath.h":
    enum: DROPS, MAX_DATAGRAM
    struct foreign_t "foreign":
        const uint8_t *data
        size_t length
        const uint8_t *remote
        size_t remote_length
    struct other_t "other":
        path_t *path
        uint8_t data[64]
        size_t length
    struct too_big_t "too_big":
        uint8_t data[1280]
        size_t length
        size_t mtu
    struct run_t "run":
        path_t *path
        size_t offset, length, segment
    struct datapath:
        table paths
        path_t *only
        path_t **busy
        int busy_count
        uint8_t *out
        path_t *building
        run_t runs[192]
        unsigned run_count
        coalescer coalescer
        foreign_t foreign[64]
        unsigned foreign_count
        other_t other[64]
        unsigned other_count
        too_big_t too_big[8]
        unsigned too_big_count
        uint64_t drops[32]
        uint64_t gone_full, gone_codel, packets_in, bytes_in, packets_out, bytes_out
        double now
        int attention
        void *context
    int datapath_begin(datapath *dp, int hub, void (*transmit)(datapath *) noexcept,
                       void (*emit)(void *, const vnet *, const iovec *, int) noexcept, void *context)
    void datapath_end(datapath *dp)
    void datapath_sent(datapath *dp)
    void datapath_frame(datapath *dp, const vnet *header, const uint8_t *packet, size_t length, double now)
    void datapath_datagrams(datapath *dp, const uint8_t *data, size_t length, size_t segment, const uint8_t *remote,
                            size_t remote_length, double now)
    void datapath_flush(datapath *dp, double now)
    double datapath_deadline(const datapath *dp)
    void datapath_note(datapath *dp, path_t *path, unsigned events)
    void datapath_forget(datapath *dp, path_t *path)
    int datapath_route(datapath *dp, const key *key, path_t *path)
    void path_advance(datapath *dp, path_t *path, uint64_t number, double now)
    int64_t path_probe(datapath *dp, path_t *path, size_t size, double now)
    void batch_seal(datapath *dp)

cdef extern from "native/io.h":
    enum: LOW_QUEUE "QUEUE_LOW"
    struct features_t "features":
        int vnet, tso, uso, udp_segment, udp_gro
    struct io_t "io":
        features_t features
        int poll
    int io_begin(io_t *io, datapath *dp)
    void io_end(io_t *io)
    int io_plain_tun(int fd)
    int io_use_tun(io_t *io, int fd)
    void io_use_udp(io_t *io, int fd)
    void io_may_read(io_t *io, int may_read)
    int io_wake(io_t *io)
    void io_flush(io_t *io)


cdef class Path:
    cdef path_t *c
    cdef readonly Datapath datapath

    cdef int install(self, packet_key *where, bytes secret, bytes iv, int sealing) except -1


cdef class Datapath:
    cdef datapath dp
    cdef io_t io
    cdef bint attached
    cdef set members
    cdef list datagrams, frames

    cdef int check(self, Path path) except -1


cdef class Timer:
    cdef int fd
