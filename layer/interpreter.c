/*
 * backstop/bin/python: CPython with a configuration of its own, out of the function's reach.
 *
 * Without arguments it is the sidecar: it calls extension.__main__.main(). With arguments it behaves like `python ARGS`.
 * In both cases it is isolated: no PYTHON* variable, no site, no user directory, no current directory. All Python code comes
 * from one file, backstop/lib/modules.bundle, wherever the layer was unpacked.
 *
 * Lambda treats an extension that died as Extension.Crash and fails the function. So whatever ends the sidecar other than
 * exit code 0 (Python that cannot start, an exception nobody caught, a fatal signal) executes the launcher again as
 * `backstop --idle WHY`, in the same process: an extension that does nothing but wait for the end.
 *
 * What is done here for a short start, and what each step saves, is in README.md.
 */
#define Py_BUILD_CORE 1 /* for the few internals used here */
#include <Python.h>
#include <internal/pycore_gc.h>
#include <internal/pycore_import.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* --- when the sidecar fails ------------------------------------------------------------------------------------------- */

/* Set once before Python starts; read by the handler of fatal signals, so nothing in it may need an allocation there. */
static char launcher[PATH_MAX];

static void become_idle(const char *why) {
    char *const argv[] = {launcher, (char *)"--idle", (char *)why, NULL};
    execve(launcher, argv, environ);
}

/* execve is one of the few things POSIX allows in a signal handler, and all that is needed here. */
static void on_fatal_signal(int number) {
    switch (number) {
    case SIGSEGV: become_idle("the sidecar was stopped by SIGSEGV"); break;
    case SIGBUS: become_idle("the sidecar was stopped by SIGBUS"); break;
    case SIGFPE: become_idle("the sidecar was stopped by SIGFPE"); break;
    case SIGILL: become_idle("the sidecar was stopped by SIGILL"); break;
    default: become_idle("the sidecar was stopped by SIGABRT"); break;
    }
    /* No launcher beside us. SA_RESETHAND has put the usual end back in place. */
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
    action.sa_flags = SA_ONSTACK | SA_NODEFER | (int)SA_RESETHAND;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

/* --- the bundle: every module in one file ------------------------------------------------------------------------------ */

/*
 * Written by layer/recipe/bundle.py. Numbers are little-endian, as on both processors of Lambda; offsets count from the start
 * of the file; a name ends with a NUL. Each entry becomes a frozen module: found by a comparison of names and read from the
 * mapped file, where a .pyc costs half a dozen system calls.
 */
struct bundle_header {
    char magic[8];
    uint32_t count;
};
struct bundle_entry {
    uint32_t name, code, code_size, is_package;
};
static const char BUNDLE_MAGIC[8] = {'B', 'K', 'S', 'T', 'P', 'P', 'Y', '1'};

/* Makes the bundle's modules importable. A file that is not there or not whole adds none: then Python does not start, and says so. */
static void use_bundle(const char *path) {
    const struct bundle_header *header;
    const struct bundle_entry *entries;
    struct _frozen *table;
    struct stat found;
    uint64_t size;
    char *data;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    if (fstat(fd, &found) != 0 || found.st_size < (off_t)sizeof *header) {
        close(fd);
        return;
    }
    size = (uint64_t)found.st_size;
    data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED) {
        return;
    }
    header = (const struct bundle_header *)data;
    entries = (const struct bundle_entry *)(data + sizeof *header);
    if (memcmp(header->magic, BUNDLE_MAGIC, sizeof BUNDLE_MAGIC) != 0 ||
        header->count > (size - sizeof *header) / sizeof *entries) {
        return;
    }
    table = calloc((size_t)header->count + 1, sizeof *table);
    if (table == NULL) {
        return;
    }
    for (uint32_t i = 0; i < header->count; i++) {
        const struct bundle_entry *entry = &entries[i];
        if (entry->name >= size || memchr(data + entry->name, '\0', size - entry->name) == NULL ||
            entry->code > size || entry->code_size > size - entry->code || entry->code_size > INT_MAX) {
            free(table);
            return;
        }
        table[i].name = data + entry->name;
        table[i].code = (const unsigned char *)data + entry->code;
        table[i].size = (int)entry->code_size;
        table[i].is_package = entry->is_package != 0;
    }
    PyImport_FrozenModules = table;
}

/* Takes zipimport out of what is imported at every start: nothing here is ever imported from a zip. The bundle has an empty
 * module of that name in its place, which CPython takes for "no zipimport here". */
static void leave_out_zipimport(void) {
    static struct _frozen kept[8];
    size_t count = 0;
    for (const struct _frozen *module = _PyImport_FrozenBootstrap; module->name != NULL; module++) {
        if (strcmp(module->name, "zipimport") != 0 && count < sizeof kept / sizeof *kept - 1) {
            kept[count++] = *module;
        }
    }
    _PyImport_FrozenBootstrap = kept;
}

/* --- memory --------------------------------------------------------------------------------------------------------------- */

/* Python fills its first arena during every start. MAP_POPULATE has the kernel map all of it at once, where 256 page faults
 * would each cost more than the page. */
static void *new_arena(void *context, size_t size) {
    int *first = context;
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (*first ? MAP_POPULATE : 0), -1, 0);
    *first = 0;
    return arena == MAP_FAILED ? NULL : arena;
}

static void free_arena(void *context, void *arena, size_t size) {
    (void)context;
    munmap(arena, size);
}

/* --- start ---------------------------------------------------------------------------------------------------------------- */

/* Cuts the last component off path. Returns 0 if there was none to cut. */
static int to_parent(char *path) {
    char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return 0;
    }
    *slash = '\0';
    return 1;
}

/* Writes the layer's root (the folder that holds backstop/bin/python; "" for /) into root. Returns 0 on failure. */
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

static PyStatus configure(PyConfig *config, const char *home, int argc, char **argv) {
    char lib[PATH_MAX + 32], executable[PATH_MAX + 32];
    const struct {
        wchar_t **field;
        const char *value;
    } paths[] = {
        {&config->stdlib_dir, lib},       {&config->prefix, home},           {&config->exec_prefix, home},
        {&config->base_prefix, home},     {&config->base_exec_prefix, home}, {&config->executable, executable},
        {&config->base_executable, executable},
    };
    PyStatus status;

    snprintf(lib, sizeof lib, "%s/lib", home);
    snprintf(executable, sizeof executable, "%s/bin/python", home);
    config->site_import = 0;
    config->write_bytecode = 0;
    config->pathconfig_warnings = 0;
    config->optimization_level = 1;
    config->use_frozen_modules = 1;
    config->install_signal_handlers = 1; /* SIGPIPE must be an error code, not the end */
    config->parse_argv = argc > 1;
    config->module_search_paths_set = 1;
    status = append_path(config, lib);
    if (!PyStatus_Exception(status)) {
        status = append_path(config, home);
    }
    /* With all of these given there is nothing left to search the disk for. */
    for (size_t i = 0; i < sizeof paths / sizeof *paths && !PyStatus_Exception(status); i++) {
        status = PyConfig_SetBytesString(config, paths[i].field, paths[i].value);
    }
    if (!PyStatus_Exception(status)) {
        status = PyConfig_SetBytesArgv(config, argc, argv);
    }
    return status;
}

static PyStatus start_python(const char *root, int argc, char **argv) {
    static int first_arena = 1;
    PyObjectArenaAllocator arenas = {&first_arena, new_arena, free_arena};
    char home[PATH_MAX + 16], bundle[PATH_MAX + 64];
    PyPreConfig preconfig;
    PyConfig config;
    PyStatus status;

    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1; /* whatever LANG says */
    status = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status)) {
        return status;
    }
    snprintf(home, sizeof home, "%s/backstop", root);
    snprintf(bundle, sizeof bundle, "%s/lib/modules.bundle", home);
    use_bundle(bundle);
    leave_out_zipimport();
    PyObject_SetArenaAllocator(&arenas);
    /* Nothing that a start makes is garbage; looking for it takes a tenth of the time. */
    _PyRuntime._main_interpreter.gc.enabled = 0;

    PyConfig_InitIsolatedConfig(&config);
    status = configure(&config, home, argc, argv);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

static void flush(const char *name) {
    PyObject *stream = PySys_GetObject(name); /* borrowed */
    PyObject *result = stream != NULL ? PyObject_CallMethod(stream, "flush", NULL) : NULL;
    if (result == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
}

/* Runs the sidecar to its end. Returns only if it failed, with the reason. */
static const char *run_sidecar(void) {
    /* Not `-m extension` and not `-c`: what those import for their own sake costs more than this. */
    PyObject *module = PyImport_ImportModule("extension.__main__");
    PyObject *main_function = module != NULL ? PyObject_GetAttrString(module, "main") : NULL;
    PyObject *result;
    if (main_function == NULL) {
        PyErr_Print();
        return "the sidecar could not be imported";
    }
    /* The modules will never be garbage: later collections need not look at them. */
    _PyGC_Freeze(PyInterpreterState_Get());
    PyGC_Enable();
    result = PyObject_CallNoArgs(main_function);
    if (result == NULL) {
        if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
            return "the sidecar asked to exit"; /* PyErr_Print would do as it asks */
        }
        PyErr_Print();
        return "the sidecar ended with an exception";
    }
    /* SHUTDOWN has been seen. Threads may still run, and there is nobody to tidy up for. */
    flush("stdout");
    flush("stderr");
    _exit(0);
}

int main(int argc, char **argv) {
    char root[PATH_MAX], why[512];
    int is_sidecar = argc < 2;
    PyStatus status;

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
            snprintf(why, sizeof why, "Python cannot start: %s", status.err_msg != NULL ? status.err_msg : "no reason given");
            become_idle(why);
        }
        Py_ExitStatusException(status);
    }
    if (is_sidecar) {
        become_idle(run_sidecar());
        return 1;
    }
    PyGC_Enable();
    return Py_RunMain();
}
