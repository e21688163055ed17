// What C++ code compiled by `cxx` executes, for libFuzzer: it takes this section for counters of its own.

#include <stdint.h>

#define COUNTERS (1 << 19)

__attribute__((section("__libfuzzer_extra_counters"), used)) static uint8_t counters[COUNTERS];

void hearth_covered(void) {
    counters[((uintptr_t) __builtin_return_address(0) >> 2) & (COUNTERS - 1)]++;
}
