# cython: language_level=3, boundscheck=False
"""`_image.pyi` says what each name does; docs/decisions/memory.md why.

The file has each page at the offset that is its address. What compares, moves or drops pages is C without an object of
Python's, with signals held back, so that nothing is written meanwhile by this process of one thread.
"""

from libc.stdint cimport uintptr_t
from libc.stdio cimport sscanf
from libc.string cimport memcmp, memmove, strchr, strstr

import fcntl
import os
from pathlib import Path

cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_CLOEXEC
    int open(const char *path, int flags)

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t kept)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int sigprocmask(int how, const sigset_t *signals, sigset_t *before)

cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_FIXED, MADV_DONTNEED
    void *MAP_FAILED
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int madvise(void *address, size_t length, int advice)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *data, size_t length)
    ssize_t pwrite(int fd, const void *data, size_t length, long offset)
    int close(int fd)

cdef enum:
    PAGE = 4096
    LEAST = 1 << 20  # bytes of a region: what is smaller is mostly of shared libraries and not worth a mapping
    MAX_REGIONS = 64

cdef const char *NAME = "/memfd:mpq-image"

cdef struct region:
    char *at
    char *image  # the file's pages again, for comparison
    size_t length


def find_regions():
    """Begin and end of heap and arenas: private memory that can be written and is no file's."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, mode, _, _, _, *name = line.split(maxsplit=5)
        begin, end = (int(number, 16) for number in where.split("-"))
        if mode == "rw-p" and name in ([], ["[heap]"]) and end - begin >= LEAST:
            found.append((begin, end))
    return found[:MAX_REGIONS]


cdef int move(const region *r, int fd) noexcept nogil:
    """The region's pages become the file's. 0, or -1 with all as it was."""
    cdef sigset_t every, before
    cdef size_t done = 0
    cdef ssize_t wrote = 1
    cdef int result = -1
    sigfillset(&every)
    sigprocmask(SIG_SETMASK, &every, &before)
    while wrote > 0 and done < r.length:
        wrote = pwrite(fd, r.at + done, r.length - done, <long>(r.at + done))
        done += max(wrote, 0)
    if done == r.length:
        if mmap(r.at, done, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, <long>r.at) != MAP_FAILED:
            result = 0
    sigprocmask(SIG_SETMASK, &before, NULL)
    return result


cdef int is_mapped(uintptr_t begin, uintptr_t end) noexcept nogil:
    """Whether the image is there: who frees memory may have unmapped it, and something else may have come there."""
    cdef char text[8192]
    cdef char *line
    cdef char *newline
    cdef size_t held = 0
    cdef ssize_t got = 1
    cdef unsigned long first, last, offset
    cdef int found = 0
    cdef int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
    if fd < 0:
        return 0
    while not found and (got := read(fd, text + held, sizeof(text) - 1 - held)) > 0:
        held += got
        text[held] = 0
        line = text
        while (newline := strchr(line, b"\n")) != NULL:
            newline[0] = 0
            if sscanf(line, "%lx-%lx rw-p %lx", &first, &last, &offset) == 3 and first == offset:
                found |= first <= begin and end <= last and strstr(line, NAME) != NULL
            line = newline + 1
        held -= line - text
        memmove(text, line, held)
    close(fd)
    return found


cdef void drop_equal(const region *r, size_t begin, size_t end) noexcept nogil:
    """Pages that have the image's bytes are the image's again."""
    cdef sigset_t every, before
    cdef size_t at = begin, first
    sigfillset(&every)
    sigprocmask(SIG_SETMASK, &every, &before)
    if is_mapped(<uintptr_t>r.at + begin, <uintptr_t>r.at + end):
        while at < end:
            first = at
            while at < end and memcmp(r.at + at, r.image + at, PAGE) == 0:
                at += PAGE
            if at > first:
                madvise(r.at + first, at - first, MADV_DONTNEED)
            at += PAGE
        madvise(r.image + begin, end - begin, MADV_DONTNEED)
    sigprocmask(SIG_SETMASK, &before, NULL)


cdef class Image:
    cdef region regions[MAX_REGIONS]
    cdef int count, current
    cdef size_t position

    def take(self):
        fd = os.memfd_create("mpq-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, 1 << 47)
            self.fill(find_regions(), fd)
            # whoever has taken a worker over cannot write to it, by no mapping
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        finally:
            os.close(fd)

    cdef int fill(self, list found, int fd) except -1:
        cdef region *r
        cdef uintptr_t begin, end
        for begin, end in found:
            r = &self.regions[self.count]
            r.at, r.length = <char *>begin, end - begin
            r.image = <char *>mmap(NULL, r.length, PROT_READ, MAP_PRIVATE, fd, <long>begin)
            if r.image == <char *>MAP_FAILED:
                raise MemoryError
            self.count += 1
        for i in range(self.count):
            if move(&self.regions[i], fd) < 0:
                raise MemoryError
        return 0

    def give_back(self, size_t size):
        if not self.count:
            return True
        if not self.current and not self.position:
            malloc_trim(0)
        cdef const region *r = &self.regions[self.current]
        cdef size_t begin = self.position
        cdef size_t end = min(r.length, begin + size // PAGE * PAGE)
        self.position = end
        if end == r.length:
            self.position, self.current = 0, self.current + 1
        if self.current >= self.count:
            self.current = 0
        drop_equal(r, begin, end)
        return not self.current and not self.position
