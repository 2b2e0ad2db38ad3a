/* Faults in the file operations below one folder, put before libc with LD_PRELOAD.
 *
 * Counts what changes files there (open to write, write, fsync, close, rename, link, unlink, mkdir,
 * rmdir, ftruncate), writes the name of each to a trace, and at the chosen one kills the process or
 * lets it fail. Reading and listing are not counted: progress does them whenever it likes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_AFTER, KILL_HALF, FAIL };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static int chosen, how, error_number, trace = -1, count;

/* Count from now on below `below`; at operation `number` (the first is 1) do `what`. */
void inject_arm(const char *below, int number, int what, int error, int trace_fd) {
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s", below);
    chosen = number; how = what; error_number = error; trace = trace_fd; count = 0;
    folder_length = strlen(folder);
    pthread_mutex_unlock(&lock);
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

/* The full path of a name relative to a folder's handle, in `out`. */
static void whole(int at, const char *path, char *out) {
    char base[PATH_MAX], link[64];
    if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return; }
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    ssize_t n = readlink(link, base, sizeof base - 1);
    base[n < 0 ? 0 : n] = 0;
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) < 0) out[0] = 0;
}

static int below(const char *path) {
    return folder_length && !strncmp(path, folder, folder_length)
        && (path[folder_length] == '/' || path[folder_length] == 0);
}

static int of_handle(int fd, char *out) {
    char link[64];
    if (!folder_length || fd == trace) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return below(out);
}

/* What to do at this operation. Kills where it is to be killed before it. */
static int meet(const char *name, const char *path) {
    char line[PATH_MAX + 32];
    pthread_mutex_lock(&lock);
    int now = ++count == chosen ? how : NOTHING;
    if (trace >= 0) {
        int n = snprintf(line, sizeof line, "%s %s\n", name, path + folder_length);
        if (syscall(SYS_write, trace, line, n) < 0) now = NOTHING;
    }
    pthread_mutex_unlock(&lock);
    if (now == KILL_BEFORE) die();
    return now;
}

#define REAL(name, type, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Call the real function, unless it is to fail; then die where it is to be killed after it. */
#define RUN(name, path, call) \
    int now = meet(name, path); \
    if (now == FAIL) { errno = error_number; return -1; } \
    int result = call; \
    if (now == KILL_AFTER || now == KILL_HALF) die(); \
    return result

static int opened(const char *name, int at, const char *path, int flags, mode_t mode) {
    REAL("openat64", int, int, const char *, int, ...);
    char full[PATH_MAX];
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) || !folder_length)
        return real(at, path, flags, mode);
    whole(at, path, full);
    if (!below(full)) return real(at, path, flags, mode);
    RUN(name, full, real(at, path, flags, mode));
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) {
    MODE(flags) return opened("open", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) {
    MODE(flags) return opened("open", AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) {
    MODE(flags) return opened("open", at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags) return opened("open", at, path, flags, mode); }

ssize_t write(int fd, const void *buffer, size_t size) {
    REAL("write", ssize_t, int, const void *, size_t);
    char path[PATH_MAX];
    if (!of_handle(fd, path)) return real(fd, buffer, size);
    int now = meet("write", path);
    if (now == FAIL || now == KILL_HALF) { /* a disk that fills up has taken some of it */
        if (real(fd, buffer, size / 2) < 0) return -1;
        if (now == KILL_HALF) die();
        errno = error_number;
        return -1;
    }
    ssize_t result = real(fd, buffer, size);
    if (now == KILL_AFTER) die();
    return result;
}

int fsync(int fd) {
    REAL("fsync", int, int);
    char path[PATH_MAX];
    if (!of_handle(fd, path)) return real(fd);
    RUN("fsync", path, real(fd));
}

int close(int fd) {
    REAL("close", int, int);
    char path[PATH_MAX];
    int flags = folder_length ? fcntl(fd, F_GETFL) : -1;
    if (flags < 0 || !(flags & (O_WRONLY | O_RDWR)) || !of_handle(fd, path)) return real(fd);
    int now = meet("close", path), result = real(fd);
    if (now == KILL_AFTER || now == KILL_HALF) die();
    if (now == FAIL) { errno = error_number; return -1; } /* closed nevertheless, as Linux does */
    return result;
}

static int truncated(int fd, off_t size) {
    REAL("ftruncate64", int, int, off_t);
    char path[PATH_MAX];
    if (!of_handle(fd, path)) return real(fd, size);
    RUN("ftruncate", path, real(fd, size));
}
int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size); }

static int named(const char *what, int from, const char *old, int to, const char *new, int flags) {
    char full[PATH_MAX];
    int link = !strcmp(what, "link");
    whole(to, new, full);
    if (!below(full))
        return (int)syscall(link ? SYS_linkat : SYS_renameat2, from, old, to, new, flags);
    RUN(what, full, (int)syscall(link ? SYS_linkat : SYS_renameat2, from, old, to, new, flags));
}
int rename(const char *old, const char *new) {
    return named("rename", AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) {
    return named("rename", from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return named("rename", from, old, to, new, (int)flags); }
int link(const char *old, const char *new) {
    return named("link", AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) {
    return named("link", from, old, to, new, flags); }

static int changed(const char *what, int at, const char *path, int call, int argument) {
    char full[PATH_MAX];
    whole(at, path, full);
    if (!below(full)) return (int)syscall(call, at, path, argument);
    RUN(what, full, (int)syscall(call, at, path, argument));
}
int unlink(const char *path) { return changed("unlink", AT_FDCWD, path, SYS_unlinkat, 0); }
int unlinkat(int at, const char *path, int flags) {
    return changed(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, path, SYS_unlinkat, flags); }
int rmdir(const char *path) {
    return changed("rmdir", AT_FDCWD, path, SYS_unlinkat, AT_REMOVEDIR); }
int mkdir(const char *path, mode_t mode) {
    return changed("mkdir", AT_FDCWD, path, SYS_mkdirat, (int)mode); }
int mkdirat(int at, const char *path, mode_t mode) {
    return changed("mkdir", at, path, SYS_mkdirat, (int)mode); }
