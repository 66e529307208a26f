/* Faults of a disk, and death at an exact system call, inside a real process.
 *
 * Preloaded. The process maps a control file (fault_control), through which a test arms one fault at any moment: at the
 * n-th call of the chosen kinds on a path that holds a text, and as often as said from there on, the process dies before,
 * in the middle of or after the call, or the call fails, or it is slow. Nothing is intercepted until a fault is armed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SYNC = 1, WRITE = 2, RENAME = 4, UNLINK = 8, TRUNCATE = 16, MKDIR = 32 };
enum { DIE_BEFORE = 1, DIE_AFTER = 2, DIE_TORN = 3, FAIL = 4, DELAY = 5 };

struct control {
    _Atomic int32_t armed;   /* 0: nothing happens */
    int32_t kinds;           /* which calls */
    int32_t action;
    int32_t argument;        /* errno, or milliseconds */
    int64_t nth;             /* first call that is hit, from 1 */
    int64_t times;           /* how many are hit from there on; negative: all */
    _Atomic int64_t seen;    /* matching calls since it was armed */
    _Atomic int64_t hit;     /* of those, the ones that were hit */
    char text[1000];         /* the path must hold this */
};

static struct control *control;
static pid_t owner;

__attribute__((constructor)) static void begin(void) { unsetenv("LD_PRELOAD"); }

int fault_control(const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return -1;
    void *place = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (place == MAP_FAILED) return -1;
    owner = getpid();
    control = place;
    return 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int holds(int fd, const char *name) {
    char link[64], path[PATH_MAX];
    if (!control->text[0]) return 1;
    if (name != NULL) return strstr(name, control->text) != NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return path[0] == '/' && strncmp(path, "/dev/", 5) != 0 && strstr(path, control->text) != NULL;
}

/* The action for this call; 0: go on as if nothing was. A delay is served here. */
static int hit(int kind, int fd, const char *name) {
    int saved = errno, action = 0;
    if (control == NULL || !atomic_load(&control->armed) || !(control->kinds & kind) || owner != getpid()) return 0;
    if (holds(fd, name)) {
        int64_t number = atomic_fetch_add(&control->seen, 1) + 1;
        if (number >= control->nth && (control->times < 0 || number < control->nth + control->times)) {
            atomic_fetch_add(&control->hit, 1);
            action = control->action;
        }
    }
    errno = saved;
    if (action == DIE_BEFORE) die();
    if (action == DELAY) {
        usleep((useconds_t)control->argument * 1000);
        return 0;
    }
    return action;
}

#define REAL(type, name, ...)                                        \
    static type (*real)(__VA_ARGS__);                                \
    if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define AROUND(kind, fd, path, call)                                 \
    int action = hit(kind, fd, path);                                \
    if (action == FAIL) { errno = control->argument; return -1; }    \
    __typeof__(call) result = (call);                                \
    if (action == DIE_AFTER || action == DIE_TORN) die();            \
    return result

int fsync(int fd) { REAL(int, "fsync", int); AROUND(SYNC, fd, NULL, real(fd)); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); AROUND(SYNC, fd, NULL, real(fd)); }

/* A kill can stop a write between two pages, never inside of one: a torn write leaves what lies in its first page. */
static size_t torn(size_t size, off64_t at) {
    size_t first = 4096 - (size_t)(at < 0 ? 0 : at) % 4096;
    return first < size ? first : size;
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int action = hit(WRITE, fd, NULL);
    if (action == FAIL) { errno = control->argument; return -1; }
    ssize_t done = real(fd, data, action == DIE_TORN ? torn(size, lseek64(fd, 0, SEEK_CUR)) : size);
    if (action) die();
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    int action = hit(WRITE, fd, NULL);
    if (action == FAIL) { errno = control->argument; return -1; }
    ssize_t done = real(fd, data, action == DIE_TORN ? torn(size, at) : size, at);
    if (action) die();
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    AROUND(WRITE, fd, NULL, real(fd, parts, count));
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    AROUND(RENAME, -1, to, real(from, to));
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    AROUND(RENAME, -1, to, real(a, from, b, to));
}
int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    AROUND(RENAME, -1, to, real(from, to));
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    AROUND(RENAME, -1, to, real(a, from, b, to, flags));
}
int unlink(const char *path) { REAL(int, "unlink", const char *); AROUND(UNLINK, -1, path, real(path)); }
int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    AROUND(UNLINK, at, path[0] == '/' ? path : NULL, real(at, path, flags));
}
int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    AROUND(TRUNCATE, fd, NULL, real(fd, size));
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int mkdir(const char *path, mode_t mode) { REAL(int, "mkdir", const char *, mode_t); AROUND(MKDIR, -1, path, real(path, mode)); }
