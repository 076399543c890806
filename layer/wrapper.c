/*
 * backstop-wrapper: what AWS_LAMBDA_EXEC_WRAPPER names. It gets the runtime's command line and becomes the runtime.
 *
 * It points the runtime at the sidecar's proxy, but only if the proxy's address was left for it and the proxy answers
 * within 50 ms; else the environment stays as it is and the runtime talks to Lambda itself. It leaves the runtime's
 * process number for the sidecar (exec keeps it), and makes the runtime the first to go when memory runs out.
 * Nothing in here may keep the runtime from starting, so every failure but the last exec's is passed over in silence.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int PING_BUDGET_MS = 50;

/* Reads the proxy's address, one line, into text. Returns 0 if there is none. */
static int read_proxy_address(char *text, size_t size) {
    char path[PATH_MAX];
    ssize_t length;
    int fd;
    if (!state_path(path, sizeof path, "proxy")) {
        return 0;
    }
    /* O_NONBLOCK: should the name be a pipe, opening it must not wait for a writer. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return 0;
    }
    length = read(fd, text, size - 1);
    close(fd);
    if (length < 1 || text[length - 1] != '\n') {
        return 0;
    }
    text[length - 1] = '\0';
    return 1;
}

/* Leaves "PID PIDNS\n" in the state folder, by rename, for the sidecar, which may run as another user. */
static void leave_pid(void) {
    char path[PATH_MAX], temporary[PATH_MAX], name[64], line[128], space[64] = "?";
    ssize_t length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    int fd, size, written;
    if (length > 0) {
        space[length] = '\0';
    }
    snprintf(name, sizeof name, ".runtime.pid.%ld", (long)getpid());
    if (!state_path(path, sizeof path, "runtime.pid") || !state_path(temporary, sizeof temporary, name)) {
        return;
    }
    unlink(temporary); /* left by an earlier life that had our number */
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return;
    }
    size = snprintf(line, sizeof line, "%ld %s\n", (long)getpid(), space);
    written = fchmod(fd, 0644) == 0 && write(fd, line, (size_t)size) == size; /* fchmod: past the umask */
    if (close(fd) != 0 || !written || rename(temporary, path) != 0) {
        unlink(temporary);
    }
}

/* Does a proxy of ours answer there within the budget? */
static int proxy_answers(const struct sockaddr_in *address) {
    static const char ping[] = "GET /.backstop/ping HTTP/1.1\r\nHost: backstop\r\nConnection: close\r\n\r\n";
    static const char wanted[] = "HTTP/1.1 204";
    const long long deadline = now_ms() + PING_BUDGET_MS;
    char answer[sizeof wanted - 1];
    size_t have = 0;
    int fd = connect_until(address, deadline);
    if (fd < 0) {
        return 0;
    }
    if (send_until(fd, ping, sizeof ping - 1, deadline) == 0) {
        while (have < sizeof answer) {
            long received = receive_until(fd, answer + have, sizeof answer - have, deadline);
            if (received <= 0) {
                break;
            }
            have += (size_t)received;
        }
    }
    close(fd);
    return have == sizeof answer && memcmp(answer, wanted, sizeof answer) == 0;
}

static void attach(void) {
    char text[64];
    struct sockaddr_in address;
    int have_address = read_proxy_address(text, sizeof text);
    leave_pid();
    if (!have_address || !parse_address(text, &address)) {
        return;
    }
    /* The state folder is open to all who live here: a runtime is only ever sent to its own machine. */
    if ((ntohl(address.sin_addr.s_addr) >> 24) != 127) {
        return;
    }
    if (proxy_answers(&address)) {
        setenv("AWS_LAMBDA_RUNTIME_API", text, 1); /* out of memory: the runtime gets the real API */
    }
}

static void go_first_when_memory_runs_out(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, "1000\n", 5) != 5) {
            /* not allowed here: then all are equal */
        }
        close(fd);
    }
}

/* Executes argv; returns only on failure, with errno. A file that the kernel takes for no program is a script for sh. */
static void execute(char **argv) {
    execvp(argv[0], argv);
    if (errno == ENOEXEC) {
        size_t count = 0;
        char **shell;
        while (argv[count] != NULL) {
            count++;
        }
        shell = malloc((count + 2) * sizeof *shell);
        if (shell != NULL) {
            shell[0] = (char *)"sh";
            memcpy(shell + 1, argv, (count + 1) * sizeof *shell);
            execv("/bin/sh", shell);
            free(shell);
            errno = ENOEXEC;
        }
    }
}

int main(int argc, char **argv) {
    const char *next = getenv("BACKSTOP_NEXT_WRAPPER");
    int error;
    if (argc < 2) {
        fputs("backstop-wrapper: no command to run; it is for AWS_LAMBDA_EXEC_WRAPPER, or: backstop-wrapper COMMAND ...\n", stderr);
        return 127;
    }
    if (!is_on("BACKSTOP_DISABLE")) {
        attach();
        go_first_when_memory_runs_out();
    }
    if (next != NULL && next[0] != '\0') {
        /* argv[0] is our own name: the next wrapper's takes its place, and it gets the runtime's command line behind it. */
        char *own = argv[0];
        argv[0] = (char *)next;
        execute(argv);
        fprintf(stderr, "backstop-wrapper: BACKSTOP_NEXT_WRAPPER=%s cannot be executed (%s); going on without it\n", next,
                strerror(errno));
        argv[0] = own;
    }
    execute(argv + 1);
    error = errno;
    fprintf(stderr, "backstop-wrapper: %s: %s\n", argv[1], strerror(error));
    /* As a shell has it: 127 is not found; a name that is there but cannot run, or whose interpreter is missing, is 126. */
    return error == ENOENT && (strchr(argv[1], '/') == NULL || access(argv[1], F_OK) != 0) ? 127 : 126;
}
