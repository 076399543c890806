/* The smallest extension there is: it registers, waits for SHUTDOWN, and costs the function nothing. */
#ifndef BACKSTOP_IDLE_H
#define BACKSTOP_IDLE_H

/*
 * Runs until SHUTDOWN; never returns. name: the file's name in /opt/extensions. identifier: what an earlier life of this
 * same process was given when it registered, or NULL.
 */
_Noreturn void idle(const char *name, const char *identifier);

#endif
