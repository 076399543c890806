/* What the launcher and the wrapper share: settings, the state folder, time, and one exchange over a local socket. */
#ifndef BACKSTOP_COMMON_H
#define BACKSTOP_COMMON_H

#include <netinet/in.h>
#include <stddef.h>

/* Is the setting a yes? Reads what extension/settings.py reads: 1, true, yes or on, in any case of letters. */
int is_on(const char *variable);

/* Writes "<BACKSTOP_STATE_DIR>/<name>" into path; a folder that is not absolute is ignored, as in extension/settings.py.
 * Returns 0 if it does not fit. */
int state_path(char *path, size_t size, const char *name);

/* Milliseconds of the monotonic clock. */
long long now_ms(void);

/* Reads "a.b.c.d:port", with nothing before or behind it. Returns 0 if text is anything else. */
int parse_address(const char *text, struct sockaddr_in *address);

/* Connects, not blocking, until deadline (of now_ms; -1: no limit). Returns a descriptor (close-on-exec) or -1 with errno. */
int connect_until(const struct sockaddr_in *address, long long deadline);

/* Sends all of data until deadline. Returns 0, or -1 with errno. */
int send_until(int fd, const char *data, size_t length, long long deadline);

/* Receives at most size bytes until deadline. Returns their number, 0 at the end of the stream, or -1 with errno. */
long receive_until(int fd, char *data, size_t size, long long deadline);

#endif
