/* Loaded, with global symbols, before the wheel `bochscpu-python`.
 *
 * The wheel builds every CPU by calling create_corei3_cnl_cpuid through its PLT. The function of that name below is
 * found first, and calls the maker of the model that EMULATED_CPU names instead: the wheel carries them all.
 * It was also linked against two names that only glibc 2.38 and later have. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *wheel;

void cpu_model_wheel(void *handle)
{
    wheel = handle;
}

void *_Z23create_corei3_cnl_cpuidP8BX_CPU_C(void *cpu)
{
    const char *model = getenv("EMULATED_CPU");
    char symbol[160];
    void *(*make)(void *) = NULL;
    if (model != NULL && strlen(model) < 100) {
        snprintf(symbol, sizeof symbol, "_Z%zucreate_%s_cpuidP8BX_CPU_C", strlen("create__cpuid") + strlen(model), model);
        make = (void *(*)(void *))dlsym(wheel, symbol);
    }
    if (make == NULL) {
        fprintf(stderr, "x86run: EMULATED_CPU=%s is no model of the emulator\n", model ? model : "");
        exit(2);
    }
    return make(cpu);
}

unsigned long long __isoc23_strtoull(const char *text, char **end, int base)
{
    return strtoull(text, end, base);
}

int __isoc23_sscanf(const char *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int read = vsscanf(text, format, args);
    va_end(args);
    return read;
}
