/* Which features the processor has; and, before anything else runs, whether those are there that the program needs.
 *
 * Rust code and llama.cpp are compiled for one processor (.cargo/config.toml), so that on another one any line of either
 * may be an illegal instruction. This file is compiled for the oldest processor of its architecture (build.rs), and its
 * check runs before `main`.
 *
 * HEARTH_COMPILED_FOR: rustc's names of the features that Rust code uses, with a blank before and after each.
 * HEARTH_STATIC_GGML: llama.cpp's CPU code is a part of the program, not modules that are chosen when it starts. */

#include <string.h>
#include <unistd.h>

#ifndef HEARTH_COMPILED_FOR
#define HEARTH_COMPILED_FOR " "
#endif

/* GGML(x): llama.cpp's own word on whether its CPU code was compiled for x. Only constants are returned there. */
#ifdef HEARTH_STATIC_GGML
#define GGML(name) ggml_cpu_has_##name
int GGML(sse3)(void), GGML(ssse3)(void), GGML(avx)(void), GGML(avx2)(void), GGML(f16c)(void), GGML(fma)(void);
int GGML(bmi2)(void), GGML(avx_vnni)(void), GGML(avx512)(void), GGML(avx512_vbmi)(void), GGML(avx512_vnni)(void);
int GGML(avx512_bf16)(void), GGML(neon)(void), GGML(fp16_va)(void), GGML(dotprod)(void), GGML(matmul_int8)(void);
int GGML(sve)(void), GGML(sme)(void);
#else
#define GGML(name) 0
#endif

#if defined(__x86_64__)

#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };
/* What the system must save of a thread for a feature to be of use: bits of the register XCR0. */
enum { NOTHING = 0, YMM = 0x6, ZMM = 0xe6, TILES = 0x60000 };

struct place {
    unsigned leaf, subleaf, reg, bit, saved;
};

static int has(struct place place) {
    unsigned reg[4], low = 0, high = 0;
    if (!__get_cpuid_count(place.leaf, place.subleaf, &reg[EAX], &reg[EBX], &reg[ECX], &reg[EDX]))
        return 0;
    /* Leaf 7 says in EAX how many subleaves it has. */
    if (place.leaf == 7 && place.subleaf > 0) {
        unsigned first[4];
        if (!__get_cpuid_count(7, 0, &first[EAX], &first[EBX], &first[ECX], &first[EDX]) || first[EAX] < place.subleaf)
            return 0;
    }
    if (!(reg[place.reg] >> place.bit & 1))
        return 0;
    if (place.saved == NOTHING)
        return 1;
    unsigned xsave[4];
    if (!__get_cpuid(1, &xsave[EAX], &xsave[EBX], &xsave[ECX], &xsave[EDX]) || !(xsave[ECX] >> 27 & 1))
        return 0;
    /* XGETBV, as bytes: its intrinsic would have this file compiled for newer processors. */
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    return (low & place.saved) == place.saved;
}

#define FEATURES(X) \
    X("SSE3", "sse3", GGML(sse3), 1, 0, ECX, 0, NOTHING) \
    X("SSSE3", "ssse3", GGML(ssse3), 1, 0, ECX, 9, NOTHING) \
    X(NULL, "sse4.1", NULL, 1, 0, ECX, 19, NOTHING) \
    X(NULL, "sse4.2", NULL, 1, 0, ECX, 20, NOTHING) \
    X(NULL, "popcnt", NULL, 1, 0, ECX, 23, NOTHING) \
    X(NULL, "movbe", NULL, 1, 0, ECX, 22, NOTHING) \
    X(NULL, "aes", NULL, 1, 0, ECX, 25, NOTHING) \
    X(NULL, "pclmulqdq", NULL, 1, 0, ECX, 1, NOTHING) \
    X(NULL, "cmpxchg16b", NULL, 1, 0, ECX, 13, NOTHING) \
    X(NULL, "rdrand", NULL, 1, 0, ECX, 30, NOTHING) \
    X(NULL, "lzcnt", NULL, 0x80000001, 0, ECX, 5, NOTHING) \
    X(NULL, "sse4a", NULL, 0x80000001, 0, ECX, 6, NOTHING) \
    X(NULL, "tbm", NULL, 0x80000001, 0, ECX, 21, NOTHING) \
    X("AVX", "avx", GGML(avx), 1, 0, ECX, 28, YMM) \
    X("F16C", "f16c", GGML(f16c), 1, 0, ECX, 29, YMM) \
    X("FMA", "fma", GGML(fma), 1, 0, ECX, 12, YMM) \
    X("AVX2", "avx2", GGML(avx2), 7, 0, EBX, 5, YMM) \
    X(NULL, "bmi1", NULL, 7, 0, EBX, 3, NOTHING) \
    X("BMI2", "bmi2", GGML(bmi2), 7, 0, EBX, 8, NOTHING) \
    X(NULL, "rdseed", NULL, 7, 0, EBX, 18, NOTHING) \
    X(NULL, "adx", NULL, 7, 0, EBX, 19, NOTHING) \
    X(NULL, "sha", NULL, 7, 0, EBX, 29, NOTHING) \
    X(NULL, "gfni", NULL, 7, 0, ECX, 8, NOTHING) \
    X(NULL, "vaes", NULL, 7, 0, ECX, 9, YMM) \
    X(NULL, "vpclmulqdq", NULL, 7, 0, ECX, 10, YMM) \
    X("AVX_VNNI", "avxvnni", GGML(avx_vnni), 7, 1, EAX, 4, YMM) \
    X(NULL, "avxifma", NULL, 7, 1, EAX, 23, YMM) \
    X(NULL, "sha512", NULL, 7, 1, EAX, 0, YMM) \
    X(NULL, "sm3", NULL, 7, 1, EAX, 1, YMM) \
    X(NULL, "sm4", NULL, 7, 1, EAX, 2, YMM) \
    X(NULL, "avxvnniint8", NULL, 7, 1, EDX, 4, YMM) \
    X(NULL, "avxneconvert", NULL, 7, 1, EDX, 5, YMM) \
    X(NULL, "avxvnniint16", NULL, 7, 1, EDX, 10, YMM) \
    X("AVX512", "avx512f", GGML(avx512), 7, 0, EBX, 16, ZMM) \
    X(NULL, "avx512dq", NULL, 7, 0, EBX, 17, ZMM) \
    X(NULL, "avx512ifma", NULL, 7, 0, EBX, 21, ZMM) \
    X(NULL, "avx512cd", NULL, 7, 0, EBX, 28, ZMM) \
    X(NULL, "avx512bw", NULL, 7, 0, EBX, 30, ZMM) \
    X(NULL, "avx512vl", NULL, 7, 0, EBX, 31, ZMM) \
    X("AVX512_VBMI", "avx512vbmi", GGML(avx512_vbmi), 7, 0, ECX, 1, ZMM) \
    X(NULL, "avx512vbmi2", NULL, 7, 0, ECX, 6, ZMM) \
    X("AVX512_VNNI", "avx512vnni", GGML(avx512_vnni), 7, 0, ECX, 11, ZMM) \
    X(NULL, "avx512bitalg", NULL, 7, 0, ECX, 12, ZMM) \
    X(NULL, "avx512vpopcntdq", NULL, 7, 0, ECX, 14, ZMM) \
    X(NULL, "avx512vp2intersect", NULL, 7, 0, EDX, 8, ZMM) \
    X(NULL, "avx512fp16", NULL, 7, 0, EDX, 23, ZMM) \
    X("AVX512_BF16", "avx512bf16", GGML(avx512_bf16), 7, 1, EAX, 5, ZMM) \
    /* llama.cpp looks for tiles when it starts, and does without. */ \
    X("AMX_INT8", NULL, NULL, 7, 0, EDX, 25, TILES)

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

struct place {
    /* AT_HWCAP or AT_HWCAP2, and the bit, as the kernel's asm/hwcap.h has them. */
    unsigned word, bit;
};

static int has(struct place place) { return getauxval(place.word) >> place.bit & 1; }

#define FEATURES(X) \
    X("NEON", "neon", GGML(neon), AT_HWCAP, 1) \
    X(NULL, "aes", NULL, AT_HWCAP, 3) \
    X(NULL, "sha2", NULL, AT_HWCAP, 6) \
    X(NULL, "crc", NULL, AT_HWCAP, 7) \
    X(NULL, "lse", NULL, AT_HWCAP, 8) \
    X("FP16_VA", "fp16", GGML(fp16_va), AT_HWCAP, 10) \
    X(NULL, "rdm", NULL, AT_HWCAP, 12) \
    X(NULL, "jsconv", NULL, AT_HWCAP, 13) \
    X(NULL, "fcma", NULL, AT_HWCAP, 14) \
    X(NULL, "rcpc", NULL, AT_HWCAP, 15) \
    X(NULL, "sha3", NULL, AT_HWCAP, 17) \
    X("DOTPROD", "dotprod", GGML(dotprod), AT_HWCAP, 20) \
    X("SVE", "sve", GGML(sve), AT_HWCAP, 22) \
    X(NULL, "fhm", NULL, AT_HWCAP, 23) \
    X(NULL, "flagm", NULL, AT_HWCAP, 27) \
    X(NULL, "sve2", NULL, AT_HWCAP2, 1) \
    X(NULL, "frintts", NULL, AT_HWCAP2, 8) \
    X("MATMUL_INT8", "i8mm", GGML(matmul_int8), AT_HWCAP2, 13) \
    X(NULL, "bf16", NULL, AT_HWCAP2, 14) \
    X("SME", "sme", GGML(sme), AT_HWCAP2, 23)

#elif defined(__aarch64__) && defined(__APPLE__)

#include <sys/sysctl.h>

struct place {
    /* As sysctlbyname knows it. */
    const char *key;
};

static int has(struct place place) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(place.key, &value, &size, NULL, 0) == 0 && value;
}

#define FEATURES(X) \
    X("NEON", "neon", GGML(neon), "hw.optional.AdvSIMD") \
    X(NULL, "lse", NULL, "hw.optional.arm.FEAT_LSE") \
    X("FP16_VA", "fp16", GGML(fp16_va), "hw.optional.arm.FEAT_FP16") \
    X("DOTPROD", "dotprod", GGML(dotprod), "hw.optional.arm.FEAT_DotProd") \
    X("MATMUL_INT8", "i8mm", GGML(matmul_int8), "hw.optional.arm.FEAT_I8MM") \
    X(NULL, "bf16", NULL, "hw.optional.arm.FEAT_BF16") \
    X("SME", "sme", GGML(sme), "hw.optional.arm.FEAT_SME")

#else

/* Another architecture: nothing is known, and nothing is checked. */
struct place {
    int none;
};
static int has(struct place place) { return place.none; }
#define FEATURES(X) X("", NULL, NULL, 0)

#endif

static const struct feature {
    /* llama.cpp's name, or NULL if its CPU code has nothing for this feature. */
    const char *ggml;
    /* rustc's name, or NULL if it does not use the feature by itself. */
    const char *rust;
    /* 1 if llama.cpp was compiled for it; NULL if it looks by itself, or has nothing for it. */
    int (*compiled)(void);
    struct place place;
} features[] = {
#define ROW(ggml, rust, compiled, ...) {ggml, rust, compiled, {__VA_ARGS__}},
    FEATURES(ROW)
#undef ROW
};
enum { COUNT = sizeof features / sizeof *features };

/* llama.cpp's names of the features which the processor has, with a blank after each. Not for several threads at once. */
const char *hearth_cpu_features(void) {
    static char names[512];
    names[0] = 0;
    for (int i = 0; i < COUNT; i++)
        if (features[i].ggml && has(features[i].place)) {
            strncat(names, features[i].ggml, sizeof names - strlen(names) - 1);
            strncat(names, " ", sizeof names - strlen(names) - 1);
        }
    return names;
}

/* True if `word` is in `list`, which has a blank before and after each word. */
static int is_in(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if (at > list && at[-1] == ' ' && at[length] == ' ')
            return 1;
    return 0;
}

static void say(const char *text) {
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

/* Before C++ constructors, whose priority is the last one; those of macOS have none. */
#ifdef __APPLE__
#define FIRST constructor
#else
#define FIRST constructor(101)
#endif

__attribute__((FIRST)) static void check(void) {
    int missing = 0;
    for (int i = 0; i < COUNT; i++) {
        const struct feature *feature = &features[i];
        int needed = (feature->rust && is_in(HEARTH_COMPILED_FOR, feature->rust)) ||
                     (feature->compiled && feature->compiled());
        if (!needed || has(feature->place))
            continue;
        say(missing++ ? ", " : "error: hearth was built for another processor; this one lacks ");
        say(feature->ggml ? feature->ggml : feature->rust);
    }
    if (missing) {
        say("\nhint: build it on this machine: scripts/serve, or `cargo clean` and `cargo build --release`; HEARTH_CPU builds for "
            "others (docs/building.md)\n");
        _exit(1);
    }
}
