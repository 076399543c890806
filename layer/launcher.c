/*
 * extensions/backstop: what Lambda starts. It clears the last life's state files and becomes the sidecar.
 *
 * /tmp outlives a reset of the environment, so the address of a proxy that is gone may still lie there; it has to go before
 * anything else can happen. Then the interpreter takes this process over: no fork, nothing stays behind.
 * Where there is no sidecar to become (switched off, or the interpreter cannot be executed in this image), it is the idle
 * extension of idle.c. The interpreter comes back here as `backstop --idle WHY` when the sidecar itself fails.
 */
#define _GNU_SOURCE
#include "common.h"
#include "idle.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The sidecar puts its extension identifier here once it has it, so that the idle loop can go on under it. */
static const char IDENTIFIER_VARIABLE[] = "BACKSTOP_EXTENSION_ID";

extern char **environ;

static void clear_state(void) {
    static const char *const names[] = {"proxy", "runtime.pid"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (state_path(path, sizeof path, names[i])) {
            unlink(path);
        }
    }
}

/* One line in the function's log, as JSON: {"backstop":"warning","what":...,"why":...}. */
static void warn(const char *what, const char *why, const char *detail) {
    printf("{\"backstop\":\"warning\",\"what\":\"%s\",\"why\":\"", what);
    for (const char *text = why; text != NULL; text = text == why ? detail : NULL) {
        if (text == detail) {
            fputs(": ", stdout);
        }
        for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
            if (*c == '"' || *c == '\\') {
                printf("\\%c", *c);
            } else if (*c < 0x20) {
                printf("\\u%04x", *c);
            } else {
                putchar(*c);
            }
        }
    }
    puts("\"}");
    fflush(stdout);
}

/* Leaves the moment of our start for the sidecar's ready line, in ns of CLOCK_MONOTONIC. */
static void note_start(void) {
    struct timespec now;
    char text[32];
    if (clock_gettime(CLOCK_MONOTONIC, &now) == 0) {
        snprintf(text, sizeof text, "%lld", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
        setenv("BACKSTOP_LAUNCHED_NS", text, 1);
    }
}

int main(int argc, char **argv) {
    char self[PATH_MAX], interpreter[PATH_MAX + 32];
    char *const arguments[] = {interpreter, NULL};
    const char *name;
    ssize_t length;
    char *slash;

    note_start();
    clear_state();

    length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) {
        self[length] = '\0';
    } else {
        /* Without /proc: Lambda starts extensions by their full path, under /opt. */
        snprintf(self, sizeof self, "%s", argc > 0 && argv[0][0] == '/' ? argv[0] : "/opt/extensions/backstop");
    }
    slash = strrchr(self, '/');
    name = slash + 1;

    if (argc > 2 && strcmp(argv[1], "--idle") == 0) {
        warn("sidecar", argv[2], NULL);
        idle(name, getenv(IDENTIFIER_VARIABLE));
    }
    if (is_on("BACKSTOP_DISABLE")) {
        idle(name, NULL);
    }
    *slash = '\0';
    slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    snprintf(interpreter, sizeof interpreter, "%s/backstop/bin/python", slash != NULL ? self : "");
    unsetenv(IDENTIFIER_VARIABLE); /* only a life of this very process may have set it */
    execve(interpreter, arguments, environ);
    warn("interpreter cannot be executed; idle", interpreter, strerror(errno));
    /* self was cut at the slashes, and name is what stood behind the last of them. */
    idle(name, NULL);
}
