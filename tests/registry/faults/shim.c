/* Stands between a process and the C library, for the files below one folder:
 * - makes the n-th call fail (an error number, or a short write),
 * - writes down every change, with its bytes, for the simulation of a power loss.
 * Loaded with LD_PRELOAD; `shim.py` drives it. It sees Python and SQLite alike.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define SHORT_WRITE 1000
#define FICLONE_REQUEST 0x40049409
#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* What a call does, so that it only fails as such a call can. */
enum { READS = 1, GROWS = 2, CHANGES = 4, WAITS = 8, WRITES = 16 };

static char root[PATH_MAX];
static size_t root_length;
static FILE *record;
static long calls, at;
static int fault, sticky, hit;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
// A folder is written down before another thread can make one in it.
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

EXPORT void shim_watch(const char *folder) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
}

EXPORT void shim_arm(long position, int number, int repeated) {
    calls = 0, at = position, fault = number, sticky = repeated, hit = 0;
}

EXPORT long shim_calls(void) { return calls; }
EXPORT int shim_hit(void) { return hit; }

EXPORT int shim_record(const char *path) {
    record = path ? fopen(path, "wb") : (fclose(record), NULL);
    return record != NULL;
}

EXPORT void shim_note(const char *text) {
    if (record) fprintf(record, "note\t%zu\n%s", strlen(text), text), fflush(record);
}

static int watched(const char *path) {
    return root_length && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || !path[root_length]);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return watched(path);
}

static int path_at(int folder, const char *name, char *path) {
    if (name[0] == '/' || folder == AT_FDCWD) {
        snprintf(path, PATH_MAX, "%s", name);
        return watched(path);
    }
    path_of(folder, path);
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "/%s", name);
    return watched(path);
}

static int can_fail(int kind) {
    switch (fault) {
    case ENOSPC: return kind & GROWS;
    case EINTR: return kind & WAITS;
    case EROFS: return kind & (GROWS | CHANGES);
    case SHORT_WRITE: return kind & WRITES;
    default: return 1;
    }
}

/* The number of the error that this call has to fail with, or 0. */
static int failing(int kind) {
    if (!fault || !can_fail(kind)) return 0;
    pthread_mutex_lock(&mutex);
    long number = ++calls;
    int fails = at && (number == at || (sticky && number > at));
    if (fails) hit = 1;
    pthread_mutex_unlock(&mutex);
    return fails ? fault : 0;
}

#define FAIL(kind) \
    do { \
        int number_ = failing(kind); \
        if (number_ && number_ != SHORT_WRITE) { errno = number_; return -1; } \
    } while (0)

static unsigned long inode(const char *path) {
    struct stat facts;
    return lstat(path, &facts) ? 0 : facts.st_ino;
}

static unsigned long inode_of(int descriptor) {
    struct stat facts;
    return fstat(descriptor, &facts) ? 0 : facts.st_ino;
}

static void write_down(const char *what, const char *first, const char *second, unsigned long a,
                       long b, const void *data, size_t size) {
    if (!record) return;
    int before = errno;
    pthread_mutex_lock(&mutex);
    fprintf(record, "%s\t%s\t%s\t%lu\t%ld\t%zu\n", what, first, second, a, b, size);
    if (size) fwrite(data, 1, size, record);
    fflush(record);
    pthread_mutex_unlock(&mutex);
    errno = before;
}

static int opened(int descriptor, const char *path, int flags, int existed) {
    if (descriptor >= 0 && (flags & O_CREAT) && !existed)
        write_down("create", path, "", inode_of(descriptor), 0, NULL, 0);
    else if (descriptor >= 0 && (flags & O_TRUNC))
        write_down("truncate", "", "", inode_of(descriptor), 0, NULL, 0);
    return descriptor;
}

#define OPEN_KIND (READS | WAITS | (flags & O_CREAT ? GROWS | CHANGES : 0))
#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

#define OPEN(name) \
    EXPORT int name(const char *file, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        MODE \
        if (!watched(file)) return real(file, flags, mode); \
        int existed = inode(file) != 0; \
        if (!(flags & O_CREAT) && !existed) return real(file, flags, mode); \
        FAIL(OPEN_KIND); \
        return opened(real(file, flags, mode), file, flags, existed); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    EXPORT int name(int folder, const char *file, int flags, ...) { \
        REAL(int, name, int, const char *, int, ...); \
        MODE \
        char path[PATH_MAX]; \
        if (!root_length || !path_at(folder, file, path)) return real(folder, file, flags, mode); \
        int existed = inode(path) != 0; \
        FAIL(OPEN_KIND); \
        return opened(real(folder, file, flags, mode), path, flags, existed); \
    }
OPENAT(openat)
OPENAT(openat64)

EXPORT ssize_t read(int descriptor, void *data, size_t size) {
    REAL(ssize_t, read, int, void *, size_t);
    char path[PATH_MAX];
    if (root_length && fault && path_of(descriptor, path)) FAIL(READS | WAITS);
    return real(descriptor, data, size);
}

#define PREAD(name, offset_type) \
    EXPORT ssize_t name(int descriptor, void *data, size_t size, offset_type offset) { \
        REAL(ssize_t, name, int, void *, size_t, offset_type); \
        char path[PATH_MAX]; \
        if (root_length && fault && path_of(descriptor, path)) FAIL(READS | WAITS); \
        return real(descriptor, data, size, offset); \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

EXPORT ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    char path[PATH_MAX];
    if (!root_length || !path_of(descriptor, path)) return real(descriptor, data, size);
    int number = failing(GROWS | CHANGES | WAITS | WRITES);
    if (number && (number != SHORT_WRITE || size < 2)) {
        if (number != SHORT_WRITE) { errno = number; return -1; }
    } else if (number) {
        size /= 2;
    }
    long offset = fcntl(descriptor, F_GETFL) & O_APPEND ? lseek(descriptor, 0, SEEK_END)
                                                         : lseek(descriptor, 0, SEEK_CUR);
    ssize_t done = real(descriptor, data, size);
    if (done > 0) write_down("write", "", "", inode_of(descriptor), offset, data, (size_t)done);
    return done;
}

#define PWRITE(name, offset_type) \
    EXPORT ssize_t name(int descriptor, const void *data, size_t size, offset_type offset) { \
        REAL(ssize_t, name, int, const void *, size_t, offset_type); \
        char path[PATH_MAX]; \
        if (!root_length || !path_of(descriptor, path)) \
            return real(descriptor, data, size, offset); \
        int number = failing(GROWS | CHANGES | WAITS | WRITES); \
        if (number && number != SHORT_WRITE) { errno = number; return -1; } \
        if (number && size > 1) size /= 2; \
        ssize_t done = real(descriptor, data, size, offset); \
        if (done > 0) \
            write_down("write", "", "", inode_of(descriptor), offset, data, (size_t)done); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* Copies inside the kernel would pass unseen: the caller has to fall back to read and write. */
EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size,
                               unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    char path[PATH_MAX];
    if (root_length && path_of(out, path)) { errno = EXDEV; return -1; }
    return real(in, in_at, out, out_at, size, flags);
}

#define SENDFILE(name, offset_type) \
    EXPORT ssize_t name(int out, int in, offset_type *offset, size_t size) { \
        REAL(ssize_t, name, int, int, offset_type *, size_t); \
        char path[PATH_MAX]; \
        if (root_length && path_of(out, path)) { errno = EINVAL; return -1; } \
        return real(out, in, offset, size); \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

EXPORT int ioctl(int descriptor, unsigned long request, ...) {
    REAL(int, ioctl, int, unsigned long, void *);
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    char path[PATH_MAX];
    if (request == FICLONE_REQUEST && root_length && path_of(descriptor, path)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return real(descriptor, request, argument);
}

#define SYNC(name) \
    EXPORT int name(int descriptor) { \
        REAL(int, name, int); \
        char path[PATH_MAX]; \
        if (!root_length || !path_of(descriptor, path)) return real(descriptor); \
        FAIL(GROWS | CHANGES | WAITS); \
        int done = real(descriptor); \
        if (!done) write_down("sync", "", "", inode_of(descriptor), 0, NULL, 0); \
        return done; \
    }
SYNC(fsync)
SYNC(fdatasync)

#define FTRUNCATE(name, offset_type) \
    EXPORT int name(int descriptor, offset_type size) { \
        REAL(int, name, int, offset_type); \
        char path[PATH_MAX]; \
        if (!root_length || !path_of(descriptor, path)) return real(descriptor, size); \
        FAIL(GROWS | CHANGES | WAITS); \
        int done = real(descriptor, size); \
        if (!done) write_down("truncate", "", "", inode_of(descriptor), size, NULL, 0); \
        return done; \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

EXPORT int rename(const char *source, const char *target) {
    REAL(int, rename, const char *, const char *);
    if (!watched(target)) return real(source, target);
    FAIL(GROWS | CHANGES);
    int done = real(source, target);
    if (!done) write_down("rename", source, target, 0, 0, NULL, 0);
    return done;
}

EXPORT int link(const char *source, const char *target) {
    REAL(int, link, const char *, const char *);
    if (!watched(target)) return real(source, target);
    FAIL(GROWS | CHANGES);
    int done = real(source, target);
    if (!done) write_down("link", source, target, 0, 0, NULL, 0);
    return done;
}

EXPORT int unlink(const char *path) {
    REAL(int, unlink, const char *);
    if (!watched(path)) return real(path);
    FAIL(CHANGES);
    int done = real(path);
    if (!done) write_down("unlink", path, "", 0, 0, NULL, 0);
    return done;
}

EXPORT int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    if (!watched(path)) return real(path);
    FAIL(CHANGES);
    int done = real(path);
    if (!done) write_down("unlink", path, "", 0, 0, NULL, 0);
    return done;
}

EXPORT int unlinkat(int folder, const char *name, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    char path[PATH_MAX];
    if (!root_length || !path_at(folder, name, path)) return real(folder, name, flags);
    FAIL(CHANGES);
    int done = real(folder, name, flags);
    if (!done) write_down("unlink", path, "", 0, 0, NULL, 0);
    return done;
}

EXPORT int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (!watched(path)) return real(path, mode);
    FAIL(GROWS | CHANGES);
    pthread_mutex_lock(&making);
    int done = real(path, mode);
    int error = errno;
    if (!done) write_down("mkdir", path, "", inode(path), 0, NULL, 0);
    pthread_mutex_unlock(&making);
    errno = error;
    return done;
}

EXPORT int chmod(const char *path, mode_t mode) {
    REAL(int, chmod, const char *, mode_t);
    if (watched(path)) FAIL(CHANGES);
    return real(path, mode);
}

EXPORT int fchmod(int descriptor, mode_t mode) {
    REAL(int, fchmod, int, mode_t);
    char path[PATH_MAX];
    if (root_length && fault && path_of(descriptor, path)) FAIL(CHANGES);
    return real(descriptor, mode);
}

EXPORT int flock(int descriptor, int operation) {
    REAL(int, flock, int, int);
    char path[PATH_MAX];
    if (root_length && fault && path_of(descriptor, path)) FAIL(WAITS);
    return real(descriptor, operation);
}
