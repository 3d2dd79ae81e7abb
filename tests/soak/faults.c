/* A fault at the n-th change of a file below a folder, below libc's callers: for LD_PRELOAD (tests/soak/faults.py).
 *
 * Python, C++ (pyarrow), Rust (safetensors) and SQLite all change files through these functions of libc. What to do is
 * said by a file, named by FAULTS, which all processes map and count in together; each change is a line in FAULTS.log.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FULL, BROKEN }; /* FULL: ENOSPC from then on; BROKEN: EIO, once; both only at what takes space */

struct plan { /* as faults.py writes it */
    int action, unused;
    long at, count;
    char root[1024]; /* changes below this folder count */
};

static struct plan *plan;
static int journal = -1;

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t put(int fd, const void *data, size_t size) {
    REAL(write);
    return real(fd, data, size);
}

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("FAULTS");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found == MAP_FAILED) return;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.log", name);
    journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (journal >= 0 && journal < 100) { /* out of the way of who closes or counts the low ones */
        int high = fcntl(journal, F_DUPFD_CLOEXEC, 500);
        if (high >= 0) { close(journal); journal = high; }
    }
    plan = found;
}

static int below(const char *path) {
    size_t length = strlen(plan->root);
    return length && !strncmp(path, plan->root, length) && path[length] == '/';
}

/* The full path of `path` as seen from a folder's descriptor. */
static void full(int folder, const char *path, char *out) {
    char base[PATH_MAX / 2] = "";
    if (path[0] != '/') {
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) base[0] = 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t n = readlink(link, base, sizeof base - 1);
            base[n < 0 ? 0 : n] = 0;
        }
    }
    snprintf(out, PATH_MAX, "%s%s%s", base, base[0] ? "/" : "", path);
}

/* Counts a change; what is to be done at it. */
static int due(const char *what, const char *path, long size) {
    if (!plan || plan->action == OFF || !below(path)) return OFF;
    if (plan->action >= FULL && !strchr("wcol", what[0])) return OFF; /* write, copy, open, link */
    long number = __sync_add_and_fetch(&plan->count, 1);
    int action = plan->action;
    int hit = number == plan->at || (action == FULL && number > plan->at && plan->at);
    if (journal >= 0) {
        char line[PATH_MAX + 100];
        int n = snprintf(line, sizeof line, "%ld\t%s\t%ld\t%s\t%d\n", number, what, size,
                         path + strlen(plan->root) + 1, hit ? action : OFF);
        put(journal, line, n);
    }
    return hit ? action : OFF;
}

static int due_fd(const char *what, int fd, long size) {
    if (!plan || plan->action == OFF) return OFF;
    int before = errno;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = before;
    if (n <= 0) return OFF;
    path[n] = 0;
    return due(what, path, size);
}

static int due_at(const char *what, int folder, const char *path) {
    if (!plan || plan->action == OFF || !path) return OFF;
    int before = errno;
    char whole[PATH_MAX];
    full(folder, path, whole);
    errno = before;
    return due(what, whole, 0);
}

static void end(void) { kill(getpid(), SIGKILL); pause(); }

/* True if the call is to fail, with errno set; does not come back from KILL. */
static int fails(int action) {
    if (action == KILL) end();
    if (action == FULL) errno = ENOSPC;
    if (action == BROKEN) errno = EIO;
    return action == FULL || action == BROKEN;
}

/* A write is torn: half of it reaches the file before the kill or the error. */
#define TORN(name, fd, data, size, ...)                                          \
    REAL(name);                                                                  \
    int action = due_fd("write", fd, size);                                      \
    if (action > COUNT) {                                                        \
        if (size > 1) real(fd, data, size / 2 __VA_ARGS__);                      \
        if (fails(action)) return -1;                                            \
    }                                                                            \
    return real(fd, data, size __VA_ARGS__)

ssize_t write(int fd, const void *data, size_t size) { TORN(write, fd, data, size, ); }
#define COMMA ,
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { TORN(pwrite, fd, data, size, COMMA at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { TORN(pwrite64, fd, data, size, COMMA at); }

static long total(const struct iovec *parts, int number) {
    long size = 0;
    for (int i = 0; i < number; i++) size += parts[i].iov_len;
    return size;
}

#define SIMPLE(name, counted, ...)       \
    REAL(name);                          \
    if (fails(counted)) return -1;       \
    return real(__VA_ARGS__)

ssize_t writev(int fd, const struct iovec *v, int n) { SIMPLE(writev, due_fd("write", fd, total(v, n)), fd, v, n); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) {
    SIMPLE(pwritev, due_fd("write", fd, total(v, n)), fd, v, n, at);
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at) {
    SIMPLE(pwritev64, due_fd("write", fd, total(v, n)), fd, v, n, at);
}
/* What is copied in the kernel: its size is known only afterwards. */
#define COPIED(name, fd, ...)                                    \
    REAL(name);                                                  \
    if (fails(due_fd("copy", fd, 0))) return -1;                 \
    return real(__VA_ARGS__)
ssize_t sendfile(int to, int from, off_t *at, size_t size) { COPIED(sendfile, to, to, from, at, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { COPIED(sendfile64, to, to, from, at, size); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    COPIED(copy_file_range, to, from, a, to, b, size, flags);
}
int ftruncate(int fd, off_t size) { SIMPLE(ftruncate, due_fd("truncate", fd, size), fd, size); }
int ftruncate64(int fd, off64_t size) { SIMPLE(ftruncate64, due_fd("truncate", fd, size), fd, size); }

int rename(const char *a, const char *b) { SIMPLE(rename, due_at("rename", AT_FDCWD, b), a, b); }
int renameat(int f, const char *a, int g, const char *b) { SIMPLE(renameat, due_at("rename", g, b), f, a, g, b); }
int renameat2(int f, const char *a, int g, const char *b, unsigned flags) {
    SIMPLE(renameat2, due_at("rename", g, b), f, a, g, b, flags);
}
int unlink(const char *a) { SIMPLE(unlink, due_at("unlink", AT_FDCWD, a), a); }
int unlinkat(int f, const char *a, int flags) { SIMPLE(unlinkat, due_at("unlink", f, a), f, a, flags); }
int remove(const char *a) { SIMPLE(remove, due_at("unlink", AT_FDCWD, a), a); }
int rmdir(const char *a) { SIMPLE(rmdir, due_at("unlink", AT_FDCWD, a), a); }
int link(const char *a, const char *b) { SIMPLE(link, due_at("link", AT_FDCWD, b), a, b); }
int linkat(int f, const char *a, int g, const char *b, int flags) {
    SIMPLE(linkat, due_at("link", g, b), f, a, g, b, flags);
}
int symlink(const char *a, const char *b) { SIMPLE(symlink, due_at("link", AT_FDCWD, b), a, b); }
int chmod(const char *a, mode_t mode) { SIMPLE(chmod, due_at("mode", AT_FDCWD, a), a, mode); }
int fchmod(int fd, mode_t mode) { SIMPLE(fchmod, due_fd("mode", fd, 0), fd, mode); }

#define OPENED(name, folder, path, flags, ...)                                                     \
    REAL(name);                                                                                    \
    va_list more;                                                                                  \
    va_start(more, flags);                                                                         \
    mode_t mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;                       \
    va_end(more);                                                                                  \
    if (flags & (O_CREAT | O_TRUNC) && fails(due_at("open", folder, path))) return -1;             \
    return real(__VA_ARGS__ path, flags, mode)
int open(const char *path, int flags, ...) { OPENED(open, AT_FDCWD, path, flags, ); }
int open64(const char *path, int flags, ...) { OPENED(open64, AT_FDCWD, path, flags, ); }
int openat(int folder, const char *path, int flags, ...) { OPENED(openat, folder, path, flags, folder COMMA); }
int openat64(int folder, const char *path, int flags, ...) { OPENED(openat64, folder, path, flags, folder COMMA); }
