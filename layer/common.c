#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int is_on(const char *variable) {
    const char *value = getenv(variable);
    return value != NULL && (strcmp(value, "1") == 0 || strcasecmp(value, "true") == 0 || strcasecmp(value, "yes") == 0 ||
                             strcasecmp(value, "on") == 0);
}

int state_path(char *path, size_t size, const char *name) {
    const char *folder = getenv("BACKSTOP_STATE_DIR");
    int length;
    if (folder == NULL || folder[0] != '/') {
        folder = "/tmp/.backstop";
    }
    length = snprintf(path, size, "%s/%s", folder, name);
    return length > 0 && (size_t)length < size;
}

long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int parse_address(const char *text, struct sockaddr_in *address) {
    char host[INET_ADDRSTRLEN];
    const char *colon = strchr(text, ':');
    char *end;
    long port;
    if (colon == NULL || (size_t)(colon - text) >= sizeof host || colon[1] < '0' || colon[1] > '9') {
        return 0;
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    errno = 0;
    port = strtol(colon + 1, &end, 10);
    if (errno != 0 || *end != '\0' || port < 1 || port > 65535) {
        return 0;
    }
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_port = htons((unsigned short)port);
    return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

/* Waits until fd is ready for events. Returns 0, or -1 with errno (ETIMEDOUT past the deadline). */
static int wait_until(int fd, short events, long long deadline) {
    for (;;) {
        struct pollfd waiting = {.fd = fd, .events = events};
        long long left = -1;
        int ready;
        if (deadline >= 0) {
            left = deadline - now_ms();
            if (left < 0) {
                left = 0;
            }
            if (left > INT_MAX) {
                left = INT_MAX;
            }
        }
        ready = poll(&waiting, 1, (int)left);
        if (ready > 0) {
            return 0; /* also on POLLERR and POLLHUP: the call that follows says what it is */
        }
        if (ready == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        if (errno != EINTR) {
            return -1;
        }
    }
}

int connect_until(const struct sockaddr_in *address, long long deadline) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;
    socklen_t size = sizeof error;
    if (fd < 0) {
        return -1;
    }
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0) {
        return fd;
    }
    /* EINTR: the connection goes on being made, as with EINPROGRESS. */
    if ((errno == EINPROGRESS || errno == EINTR) && wait_until(fd, POLLOUT, deadline) == 0) {
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) {
            return fd;
        }
        if (error != 0) {
            errno = error;
        }
    }
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

int send_until(int fd, const char *data, size_t length, long long deadline) {
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent >= 0) {
            data += sent;
            length -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (wait_until(fd, POLLOUT, deadline) < 0) {
                return -1;
            }
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

long receive_until(int fd, char *data, size_t size, long long deadline) {
    for (;;) {
        ssize_t received = recv(fd, data, size, 0);
        if (received >= 0) {
            return received;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (wait_until(fd, POLLIN, deadline) < 0) {
                return -1;
            }
        } else if (errno != EINTR) {
            return -1;
        }
    }
}
