/* Preloaded into a process under measurement: counts what makes data durable, and makes each take a millisecond more.

   Every call that syncs is passed on, counted, and then sleeps for `stepwell_bench_delay` nanoseconds. Other ways to
   durability (O_DSYNC, O_SYNC, RWF_DSYNC) would escape the count, and end the process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>

atomic_long stepwell_bench_syncs, stepwell_bench_nanoseconds, stepwell_bench_delay;

static long now(struct timespec *t) {
    clock_gettime(CLOCK_MONOTONIC, t);
    return t->tv_sec * 1000000000L + t->tv_nsec;
}

static int counted(int result, long began) {
    static _Thread_local int precise;
    long delay = atomic_load(&stepwell_bench_delay);
    int kept = errno;
    struct timespec t;
    if (delay) {
        if (!precise++) prctl(PR_SET_TIMERSLACK, 1UL);
        now(&t);
        t.tv_nsec += delay;
        t.tv_sec += t.tv_nsec / 1000000000L;
        t.tv_nsec %= 1000000000L;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
    }
    atomic_fetch_add(&stepwell_bench_nanoseconds, now(&t) - began);
    if (result == 0) atomic_fetch_add(&stepwell_bench_syncs, 1);
    errno = kept;
    return result;
}

static void refuse(const char *what) {
    fprintf(stderr, "bench: %s syncs without a call that is counted\n", what);
    abort();
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define SYNC(name, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        struct timespec t; \
        long began = now(&t); \
        return counted(real arguments, began); \
    }

SYNC(fsync, (int fd), (fd))
SYNC(fdatasync, (int fd), (fd))
SYNC(sync_file_range, (int fd, off64_t at, off64_t bytes, unsigned flags), (fd, at, bytes, flags))
SYNC(msync, (void *at, size_t bytes, int flags), (at, bytes, flags))

#define OPEN(name, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (flags & O_SYNC) refuse("O_SYNC or O_DSYNC"); /* O_SYNC has the bit of O_DSYNC */ \
        return real arguments; \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

#define PWRITEV2(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off64_t at, int flags) { \
        REAL(name); \
        if (flags & (RWF_DSYNC | RWF_SYNC)) refuse("RWF_DSYNC or RWF_SYNC"); \
        return real(fd, parts, count, at, flags); \
    }

PWRITEV2(pwritev2)
PWRITEV2(pwritev64v2)
