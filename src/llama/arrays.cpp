// Large arrays that C++ code allocates begin at a cache line.
//
// ggml's CPU backend takes the memory of its intermediate results by `new uint8_t[]` (ggml-cpu.cpp), of which the C library
// aligns 16 bytes. Where that is not a cache line by chance, each vector that attention loads for a prompt lies in two.
// A program may replace this operator (C++17, [new.delete.array]); what gives the memory back is `free`, as ever.

#if defined(__linux__)

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

constexpr std::size_t LINE  = 64;
constexpr std::size_t LARGE = 4096;

void * allocate(std::size_t bytes) {
    if (bytes < LARGE) {
        return std::malloc(bytes == 0 ? 1 : bytes);
    }
    void * memory = nullptr;
    return posix_memalign(&memory, LINE, bytes) == 0 ? memory : nullptr;
}

} // namespace

void * operator new[](std::size_t bytes) {
    void * memory = allocate(bytes);
    while (memory == nullptr) {
        const std::new_handler handler = std::get_new_handler();
        if (handler == nullptr) {
            throw std::bad_alloc();
        }
        handler();
        memory = allocate(bytes);
    }
    return memory;
}

// For the test: whether large arrays begin at a cache line.
extern "C" bool hearth_arrays_are_aligned() {
    bool aligned = true;
    for (std::size_t bytes = LARGE; bytes <= LARGE * LARGE; bytes = 2 * bytes + 1) {
        void * array = ::operator new[](bytes);
        aligned = aligned && reinterpret_cast<std::uintptr_t>(array) % LINE == 0;
        ::operator delete[](array);
    }
    return aligned;
}

#endif
