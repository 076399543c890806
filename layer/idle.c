/*
 * Lambda fails a function whose extension dies or never asks for its next event (Extensions API: Extension.Crash, and the
 * ten seconds of init). When the sidecar cannot run, this takes its place: it knows just enough HTTP to be that extension.
 */
#define _GNU_SOURCE
#include "idle.h"

#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PAUSE_MS = 50, LONGEST_PAUSE_MS = 5000, UNUSABLE = 500 };

struct answer {
    int status;       /* 0: none came */
    char text[65536]; /* head and body as they came, cut, with a NUL behind */
    size_t length;
};

static struct answer answer; /* too big for a stack that may be small */

static void pause_ms(int milliseconds) {
    struct timespec left = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

/* Looks up AWS_LAMBDA_RUNTIME_API ("host:port"; nearly always an address). Returns 0 on failure. */
static int find_api(const char *api, struct sockaddr_in *address) {
    char host[256];
    const char *colon = strrchr(api, ':');
    struct addrinfo hints, *found;
    if (parse_address(api, address)) {
        return 1;
    }
    if (colon == NULL || (size_t)(colon - api) >= sizeof host) {
        return 0;
    }
    memcpy(host, api, (size_t)(colon - api));
    host[colon - api] = '\0';
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        return 0;
    }
    memcpy(address, found->ai_addr, sizeof *address);
    freeaddrinfo(found);
    return 1;
}

/* Finds a header's value in the answer's head; case of letters does not matter. Returns NULL if it is not there. */
static const char *header(const char *name) {
    const size_t length = strlen(name);
    const char *line = strstr(answer.text, "\r\n");
    while (line != NULL && strncmp(line, "\r\n\r\n", 4) != 0) {
        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " \t");
        }
        line = strstr(line, "\r\n");
    }
    return NULL;
}

/* Is the whole answer here? (Or else only the end of the stream tells.) */
static int is_complete(void) {
    const char *body = strstr(answer.text, "\r\n\r\n");
    const char *length;
    if (body == NULL) {
        return 0;
    }
    body += 4;
    length = header("Content-Length");
    if (length != NULL) {
        return answer.length - (size_t)(body - answer.text) >= strtoul(length, NULL, 10);
    }
    return header("Transfer-Encoding") != NULL && answer.length >= 5 &&
           memcmp(answer.text + answer.length - 5, "0\r\n\r\n", 5) == 0;
}

/* One request on one connection, without any limit in time: an extension's /next may take hours. */
static void ask(const char *request, const struct sockaddr_in *address) {
    int fd = connect_until(address, -1);
    answer.status = 0;
    answer.length = 0;
    answer.text[0] = '\0';
    if (fd < 0) {
        return;
    }
    if (send_until(fd, request, strlen(request), -1) == 0) {
        while (answer.length < sizeof answer.text - 1 && !is_complete()) {
            long received = receive_until(fd, answer.text + answer.length, sizeof answer.text - 1 - answer.length, -1);
            if (received <= 0) {
                break;
            }
            answer.length += (size_t)received;
            answer.text[answer.length] = '\0';
        }
        if (strncmp(answer.text, "HTTP/1.", 7) == 0 && answer.length > 12) {
            answer.status = atoi(answer.text + 9);
        }
    }
    close(fd);
}

/* Does the event say "eventType": "SHUTDOWN", with or without blanks? */
static int is_shutdown(void) {
    const char *at = strstr(answer.text, "\r\n\r\n");
    while (at != NULL && (at = strstr(at, "\"eventType\"")) != NULL) {
        at += strlen("\"eventType\"");
        at += strspn(at, " \t\r\n:");
        if (strncmp(at, "\"SHUTDOWN\"", 10) == 0) {
            return 1;
        }
    }
    return 0;
}

static void copy_value(char *to, size_t size, const char *from) {
    size_t length = strcspn(from, "\r\n");
    while (length > 0 && isspace((unsigned char)from[length - 1])) {
        length--;
    }
    if (length >= size) {
        length = size - 1;
    }
    memcpy(to, from, length);
    to[length] = '\0';
}

_Noreturn void idle(const char *name, const char *identifier) {
    static const char body[] = "{\"events\":[\"SHUTDOWN\"]}";
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    char id[256] = "", request[1024];
    struct sockaddr_in address;
    int pause = FIRST_PAUSE_MS;

    if (api == NULL || strlen(api) > 256) {
        api = "127.0.0.1:9001";
    }
    if (identifier != NULL) {
        copy_value(id, sizeof id, identifier);
    }
    for (;;) {
        int found = find_api(api, &address);
        if (found && id[0] == '\0') {
            snprintf(request, sizeof request,
                     "POST /2020-01-01/extension/register HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
                     "Lambda-Extension-Name: %.128s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     api, name, sizeof body - 1, body);
            ask(request, &address);
            if (answer.status == 200 && header("Lambda-Extension-Identifier") != NULL) {
                copy_value(id, sizeof id, header("Lambda-Extension-Identifier"));
            }
        }
        if (found && id[0] != '\0') {
            snprintf(request, sizeof request,
                     "GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
                     "Lambda-Extension-Identifier: %s\r\n\r\n",
                     api, id);
            ask(request, &address);
            if (answer.status == 200) {
                if (is_shutdown()) {
                    exit(0);
                }
                pause = FIRST_PAUSE_MS;
                continue;
            }
        }
        if (answer.status >= UNUSABLE) {
            exit(1); /* Extensions API: the environment is past use, leave promptly */
        }
        /* Nobody there, or not willing: try again, but never spin. */
        pause_ms(pause);
        pause = pause * 2 > LONGEST_PAUSE_MS ? LONGEST_PAUSE_MS : pause * 2;
    }
}
