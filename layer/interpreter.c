/*
 * backstop/bin/python: CPython with a configuration of its own, out of the function's reach.
 *
 * Without arguments it is the sidecar: it runs extension.__main__.main(). With arguments it behaves like `python ARGS`.
 * In both cases it is isolated: no PYTHON* variable, no site, no user directory, no current directory. The search path is
 * <root>/backstop/lib and <root>/backstop, wherever the layer was unpacked.
 *
 * Lambda treats an extension that died as Extension.Crash and fails the function. So whatever ends the sidecar other than
 * exit code 0 (Python that cannot start, an exception nobody caught, a fatal signal) executes the launcher again as
 * `backstop --idle WHY`, in the same process: an extension that does nothing but wait for the end.
 */
#include <Python.h>

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* Set once before Python starts; read by the handler of fatal signals, so nothing in it may need an allocation there. */
static char launcher[PATH_MAX];

static void become_idle(const char *why) {
    char *const argv[] = {launcher, (char *)"--idle", (char *)why, NULL};
    execve(launcher, argv, environ);
}

/* execve is one of the few things POSIX allows in a signal handler, and all that is needed here. */
static void on_fatal_signal(int number) {
    sigset_t all;
    switch (number) {
    case SIGSEGV: become_idle("the sidecar was stopped by SIGSEGV"); break;
    case SIGBUS: become_idle("the sidecar was stopped by SIGBUS"); break;
    case SIGFPE: become_idle("the sidecar was stopped by SIGFPE"); break;
    case SIGILL: become_idle("the sidecar was stopped by SIGILL"); break;
    default: become_idle("the sidecar was stopped by SIGABRT"); break;
    }
    /* No launcher beside us. End as the signal would have. */
    signal(number, SIG_DFL);
    sigemptyset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    raise(number);
}

static void catch_fatal_signals(void) {
    static char stack[16384]; /* the usual stack may be what ran out */
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    stack_t alternative;
    struct sigaction action;
    memset(&alternative, 0, sizeof alternative);
    alternative.ss_sp = stack;
    alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, NULL);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fatal_signal;
    /* SA_NODEFER: the signal must not stay blocked in what is executed. */
    action.sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESETHAND;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

/* Cuts the last component off path. Returns 0 if there was none to cut. */
static int to_parent(char *path) {
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) {
        return 0;
    }
    *slash = '\0';
    return 1;
}

/* Writes the layer's root (the folder that holds backstop/bin/python) into root. Returns 0 on failure. */
static int find_root(char *root, size_t size, const char *argv0) {
    ssize_t length = readlink("/proc/self/exe", root, size - 1);
    if (length > 0) {
        root[length] = '\0';
    } else if (argv0 != NULL && argv0[0] == '/' && strlen(argv0) < size) {
        strcpy(root, argv0); /* no /proc here; the launcher passes an absolute path */
    } else {
        return 0;
    }
    return to_parent(root) && to_parent(root) && to_parent(root);
}

static PyStatus append_path(PyConfig *config, const char *path) {
    wchar_t *decoded = Py_DecodeLocale(path, NULL);
    PyStatus status;
    if (decoded == NULL) {
        return PyStatus_NoMemory();
    }
    status = PyWideStringList_Append(&config->module_search_paths, decoded);
    PyMem_RawFree(decoded);
    return status;
}

static PyStatus start_python(const char *root, int argc, char **argv) {
    char home[PATH_MAX + 16], lib[PATH_MAX + 32];
    PyPreConfig preconfig;
    PyConfig config;
    PyStatus status;

    snprintf(home, sizeof home, "%s/backstop", root);
    snprintf(lib, sizeof lib, "%s/lib", home);

    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1; /* whatever LANG says */
    status = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status)) {
        return status;
    }

    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.optimization_level = 1;
    config.use_frozen_modules = 1;
    config.install_signal_handlers = 1; /* SIGPIPE must be an error code, not the end */
    config.parse_argv = argc > 1;

    config.module_search_paths_set = 1;
    status = append_path(&config, lib);
    if (!PyStatus_Exception(status)) {
        status = append_path(&config, home);
    }
    /* With all of these given there is nothing left to search the disk for. */
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.stdlib_dir, lib);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.prefix, home);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.exec_prefix, home);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.base_prefix, home);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.base_exec_prefix, home);
    }
    if (!PyStatus_Exception(status)) {
        snprintf(lib, sizeof lib, "%s/bin/python", home);
        status = PyConfig_SetBytesString(&config, &config.executable, lib);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesString(&config, &config.base_executable, lib);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesArgv(&config, argc, argv);
    }
    /* Not `-m extension`: runpy and what it imports cost milliseconds. */
    if (!PyStatus_Exception(status) && argc < 2) {
        status = PyConfig_SetString(&config, &config.run_command, L"from extension.__main__ import main; main()\n");
    }
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

int main(int argc, char **argv) {
    char root[PATH_MAX];
    int is_sidecar = argc < 2;
    PyStatus status;
    int code;

    if (!find_root(root, sizeof root, argc > 0 ? argv[0] : NULL)) {
        fprintf(stderr, "backstop: cannot tell where I am: %s\n", strerror(errno));
        return 111; /* no root, no launcher: there is nothing to fall back on */
    }
    if (snprintf(launcher, sizeof launcher, "%s/extensions/backstop", root) >= (int)sizeof launcher) {
        launcher[0] = '\0';
    }
    if (is_sidecar) {
        catch_fatal_signals();
    }
    status = start_python(root, argc, argv);
    if (PyStatus_Exception(status)) {
        if (is_sidecar) {
            char why[512];
            snprintf(why, sizeof why, "Python cannot start: %s", status.err_msg != NULL ? status.err_msg : "no reason given");
            become_idle(why);
        }
        Py_ExitStatusException(status);
    }
    code = Py_RunMain();
    if (is_sidecar && code != 0) {
        become_idle("the sidecar ended with an exception");
    }
    return code;
}
