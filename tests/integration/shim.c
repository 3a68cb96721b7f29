/* Disk faults for one process: LD_PRELOAD this, and name a file of 4096 bytes in COORDD_SHIM.
 *
 * The file is mapped, so that a test changes the rule while the server runs. Its text is one rule, or empty:
 *
 *     OPERATION PATTERN ACTION SKIP
 *
 * OPERATION: write (write, pwrite), sync (fsync, fdatasync) or read (read, pread). PATTERN: of fnmatch, for the file's name
 * without its folder. SKIP: so many matching calls pass first. ACTION, for every matching call after that:
 *
 *     EIO, ENOSPC   it fails, and nothing is done
 *     tear          half is written, then it fails with EIO
 *     die           half is written, then the process gets SIGKILL
 *     lie           a sync answers 0, and nothing is done
 *     stall         it waits until the rule changes, then it is done
 *
 * The first byte is written last and read first: 0 means no rule. The number of matching calls is kept at offset 4088.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 4096, COUNT_AT = 4088 };

static volatile char *shared;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_read = dlsym(RTLD_NEXT, "read");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("COORDD_SHIM");
    if (path == NULL) return;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped != MAP_FAILED) shared = mapped;
}

/* The action for this call, copied to `action`; 0 if it may pass. `count`: whether it is one of those to be counted. */
static int ruled(const char *operation, int descriptor, char action[16], int count) {
    if (shared == NULL || shared[0] == 0) return 0;
    char text[COUNT_AT], wanted[16], pattern[256], link[64], path[1024];
    unsigned long skip = 0;
    __sync_synchronize();
    memcpy(text, (const char *)shared, sizeof text);
    text[sizeof text - 1] = 0;
    if (sscanf(text, "%15s %255s %15s %lu", wanted, pattern, action, &skip) != 4) return 0;
    if (strcmp(wanted, operation) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    if (name == NULL || fnmatch(pattern, name + 1, 0) != 0) return 0;
    uint64_t *counter = (uint64_t *)(uintptr_t)(shared + COUNT_AT);
    uint64_t before = count ? __sync_fetch_and_add(counter, 1) : skip;
    return before >= skip;
}

/* Does what the rule says. 1: the call has failed or is done, with errno set; 0: it is to be done. */
static int faulted(const char *operation, int descriptor, char action[16]) {
    if (!ruled(operation, descriptor, action, 1)) return 0;
    if (strcmp(action, "stall") == 0) {
        char again[16];
        struct timespec pause = {0, 5000000};
        do nanosleep(&pause, NULL);
        while (ruled(operation, descriptor, again, 0) && strcmp(again, "stall") == 0);
        return 0;
    }
    errno = strcmp(action, "ENOSPC") == 0 ? ENOSPC : EIO;
    return 1;
}

static int half_first(const char *action) { return strcmp(action, "tear") == 0 || strcmp(action, "die") == 0; }

static void end(const char *action) {
    if (strcmp(action, "die") == 0) raise(SIGKILL);
    errno = EIO;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char action[16];
    if (!faulted("write", descriptor, action)) return real_write(descriptor, data, size);
    int error = errno;
    if (half_first(action)) {
        real_write(descriptor, data, size / 2);
        end(action);
        error = EIO;
    }
    errno = error;
    return -1;
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    char action[16];
    if (!faulted("write", descriptor, action)) return real_pwrite(descriptor, data, size, offset);
    int error = errno;
    if (half_first(action)) {
        real_pwrite(descriptor, data, size / 2, offset);
        end(action);
        error = EIO;
    }
    errno = error;
    return -1;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return pwrite64(descriptor, data, size, offset);
}

ssize_t read(int descriptor, void *data, size_t size) {
    char action[16];
    return faulted("read", descriptor, action) ? -1 : real_read(descriptor, data, size);
}

ssize_t pread64(int descriptor, void *data, size_t size, off64_t offset) {
    char action[16];
    return faulted("read", descriptor, action) ? -1 : real_pread(descriptor, data, size, offset);
}

ssize_t pread(int descriptor, void *data, size_t size, off_t offset) {
    return pread64(descriptor, data, size, offset);
}

static int synced(int descriptor, int (*real)(int)) {
    char action[16];
    if (!faulted("sync", descriptor, action)) return real(descriptor);
    return strcmp(action, "lie") == 0 ? 0 : -1;
}

int fsync(int descriptor) { return synced(descriptor, real_fsync); }

int fdatasync(int descriptor) { return synced(descriptor, real_fdatasync); }
