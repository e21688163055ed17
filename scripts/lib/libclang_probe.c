/* Loads a libclang and has it read C headers, as bindgen will: libclang_probe LIBRARY FOLDER
 *
 * Exits with 0 if that works. A library without clang's own headers (stddef.h) is of no use. FOLDER takes a file. */

#include <dlfcn.h>
#include <stdio.h>

typedef void *(*create_index)(int, int);
typedef void *(*parse)(void *, const char *, const char *const *, int, void *, unsigned, unsigned);
typedef unsigned (*count)(void *);

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    char source[4096];
    snprintf(source, sizeof source, "%s/probe_source.c", argv[2]);
    FILE *file = fopen(source, "w");
    if (!file || fputs("#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\nsize_t size;\n", file) < 0 ||
        fclose(file))
        return 2;

    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library)
        return 1;
    create_index clang_create_index = (create_index)dlsym(library, "clang_createIndex");
    parse clang_parse = (parse)dlsym(library, "clang_parseTranslationUnit");
    count clang_diagnostics = (count)dlsym(library, "clang_getNumDiagnostics");
    if (!clang_create_index || !clang_parse || !clang_diagnostics)
        return 1;
    void *index = clang_create_index(0, 0);
    void *unit = index ? clang_parse(index, source, NULL, 0, NULL, 0, 0) : NULL;
    return unit && clang_diagnostics(unit) == 0 ? 0 : 1;
}
