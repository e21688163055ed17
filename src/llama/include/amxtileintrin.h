/* GCC's header of AMX intrinsics, with one of them put right for llama.cpp.
 *
 * GCC before 14 tells the optimiser that _tile_loadconfig reads 8 bytes of its 64. With -O3 it then drops what llama.cpp
 * writes to the others, tiles have no rows, and the first use of one is an illegal instruction. .cargo/config.toml puts
 * this folder in front of the compiler's own. */

#pragma GCC system_header

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 14
#define _tile_loadconfig gcc_tile_loadconfig
#include_next <amxtileintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(config)))
#else
#include_next <amxtileintrin.h>
#endif
