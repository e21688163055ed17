// Attention of prompts on CPUs, as one more device of ggml's (like its device for BLAS), which takes this one operation.
//
// ggml's own kernel for CPUs (`ggml_compute_forward_flash_attn_ext` in ggml-cpu/ops.cpp) converts the keys and values anew for
// each 64 queries of each head at best. Here all heads that share
// keys and values are computed together, some 256 queries for each conversion, with ggml's own matrix kernel. It is "flash
// attention" (Dao et al. 2022, arXiv:2205.14135): the scores of 64 keys at a time, with a running maximum and sum of each query.
//
// What a query gets depends on its keys alone, not on the queries beside it or on the number of threads.

#if defined(__linux__)

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#include "simd-gemm.h"
#include "vec.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>

namespace {

// Passes of fewer tokens are left to ggml, which sums values up in F16 then and in F32 otherwise, as we do: a text must not depend
// on how many of its tokens were computed in one pass, be it short prompts, what is left of longer ones, or drafts.
constexpr int64_t FEWEST_TOKENS = 64;
// So are longer ones, those of embeddings: llama.cpp would reserve more memory for them than is planned.
constexpr int64_t MOST_TOKENS = 1024;
// Keys whose scores are computed together.
constexpr int64_t KEYS = 64;
// Queries that a thread computes together, about; more make the memory that a thread works in larger than its cache.
constexpr int64_t QUERIES = 256;
// Queries are filled up to whole steps of ggml's matrix kernel: 2, 4 or 6 rows.
constexpr int64_t STEP = 12;
constexpr std::align_val_t LINE{64};

constexpr uint16_t F16_MINUS_INFINITY = 0xFC00;

int64_t whole(int64_t count, int64_t step) {
    return (count + step - 1) / step * step;
}

// An operation and how it is divided into pieces of work: of one stream, the heads of one key-value head, and some tokens.
struct Work {
    const ggml_tensor * queries;
    const ggml_tensor * keys;
    const ggml_tensor * values;
    const ggml_tensor * mask;
    ggml_tensor * result;
    float scale;
    // Heads of queries for each head of keys and values.
    int64_t group;
    // Tokens of a piece, and pieces of a head.
    int64_t tokens;
    int64_t pieces;

    Work(ggml_tensor * node, int threads) :
        queries(node->src[0]), keys(node->src[1]), values(node->src[2]), mask(node->src[3]), result(node),
        scale(ggml_get_op_params_f32(node, 0)), group(queries->ne[2] / keys->ne[2]) {
        const int64_t heads = keys->ne[2] * queries->ne[3];
        const int64_t all = queries->ne[1];
        const int64_t most = std::max<int64_t>(1, QUERIES / group);
        pieces = (all + most - 1) / most;
        // Few pieces are to keep all threads busy to the end.
        while (pieces < all && pieces * heads % threads != 0 && pieces * heads < 4 * threads) {
            pieces++;
        }
        tokens = (all + pieces - 1) / pieces;
        pieces = (all + tokens - 1) / tokens;
    }

    int64_t count() const { return pieces * keys->ne[2] * queries->ne[3]; }

    int64_t rows() const { return whole(tokens * group, STEP); }

    // Floats that a thread works in.
    int64_t memory() const {
        const int64_t floats = rows() * (keys->ne[0] + values->ne[0] + KEYS + 2) + KEYS * (2 * keys->ne[0] + values->ne[0] + 1);
        return whole(floats, 16);
    }

    const ggml_fp16_t * mask_of(int64_t token, int64_t stream) const {
        const char * data = static_cast<const char *>(mask->data);
        return reinterpret_cast<const ggml_fp16_t *>(data + token * mask->nb[1] + stream % mask->ne[3] * mask->nb[3]);
    }
};

// `count` rows of keys or values from `first` on, as F32; what is missing to KEYS rows is zero.
void read(const ggml_tensor * tensor, int64_t first, int64_t count, int64_t head, int64_t stream, float * to) {
    const int64_t length = tensor->ne[0];
    for (int64_t i = 0; i < count; i++, to += length) {
        const char * from = static_cast<const char *>(tensor->data) + (first + i) * tensor->nb[1] + head * tensor->nb[2] +
                            stream * tensor->nb[3];
        if (tensor->type == GGML_TYPE_F16) {
            ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t *>(from), to, length);
        } else if (tensor->type == GGML_TYPE_F32) {
            std::memcpy(to, from, length * sizeof(float));
        } else {
            ggml_get_type_traits(tensor->type)->to_float(from, to, length);
        }
    }
    std::fill_n(to, (KEYS - count) * length, 0.0f);
}

// What a mask says of some keys, for all tokens of a piece.
enum class Seen { NONE, SOME, ALL };

Seen seen(const Work & work, int64_t token, int64_t tokens, int64_t stream, int64_t key, int64_t keys) {
    uint16_t any = 0;
    uint16_t other = 0;
    for (int64_t i = 0; i < tokens; i++) {
        const ggml_fp16_t * mask = work.mask_of(token + i, stream) + key;
        for (int64_t j = 0; j < keys; j++) {
            any   |= mask[j];
            other |= mask[j] ^ F16_MINUS_INFINITY;
        }
    }
    return other == 0 ? Seen::NONE : any == 0 ? Seen::ALL : Seen::SOME;
}

void compute(const Work & work, int64_t piece, float * memory) {
    const int64_t key_length   = work.keys->ne[0];
    const int64_t value_length = work.values->ne[0];
    const int64_t all_keys     = work.keys->ne[1];
    const int64_t head         = piece / work.pieces % work.keys->ne[2];
    const int64_t stream       = piece / work.pieces / work.keys->ne[2];
    const int64_t kv_stream    = stream / (work.queries->ne[3] / work.keys->ne[3]);
    const int64_t first        = piece % work.pieces * work.tokens;
    const int64_t tokens       = std::min(work.tokens, work.queries->ne[1] - first);
    // Rows are ordered by head, then by token.
    const int64_t rows   = tokens * work.group;
    const int64_t filled = whole(rows, STEP);

    float * queries  = memory;
    float * results  = queries + filled * key_length;
    float * scores   = results + filled * value_length;
    float * keys     = scores + filled * KEYS;
    float * by_place = keys + KEYS * key_length;
    float * values   = by_place + KEYS * key_length;
    float * masked   = values + KEYS * value_length;
    float * largest  = masked + KEYS;
    float * sums     = largest + filled;

    for (int64_t row = 0; row < rows; row++) {
        const char * data = static_cast<const char *>(work.queries->data) + (first + row % tokens) * work.queries->nb[1] +
                            (head * work.group + row / tokens) * work.queries->nb[2] + stream * work.queries->nb[3];
        const float * query = reinterpret_cast<const float *>(data);
        for (int64_t i = 0; i < key_length; i++) {
            queries[row * key_length + i] = query[i] * work.scale;
        }
    }
    std::fill_n(queries + rows * key_length, (filled - rows) * key_length, 0.0f);
    std::fill_n(results, filled * value_length, 0.0f);
    std::fill_n(largest, rows, -INFINITY);
    std::fill_n(sums, rows, 0.0f);

    for (int64_t key = 0; key < all_keys; key += KEYS) {
        const int64_t count = std::min(KEYS, all_keys - key);
        const Seen    of    = work.mask ? seen(work, first, tokens, stream, key, count) : Seen::ALL;
        if (of == Seen::NONE) {
            continue;
        }
        read(work.keys, key, count, head, kv_stream, keys);
        for (int64_t i = 0; i < key_length; i++) {
            for (int64_t j = 0; j < KEYS; j++) {
                by_place[i * KEYS + j] = keys[j * key_length + i];
            }
        }
        std::fill_n(scores, filled * KEYS, 0.0f);
        simd_gemm(scores, queries, by_place, (int) filled, (int) key_length, (int) KEYS);
        if (of == Seen::SOME || count < KEYS) {
            for (int64_t token = 0; token < tokens; token++) {
                std::fill_n(masked, count, 0.0f);
                std::fill_n(masked + count, KEYS - count, -INFINITY);
                if (work.mask) {
                    ggml_cpu_fp16_to_fp32(work.mask_of(first + token, stream) + key, masked, count);
                }
                for (int64_t row = token; row < rows; row += tokens) {
                    ggml_vec_add_f32(KEYS, scores + row * KEYS, scores + row * KEYS, masked);
                }
            }
        }
        for (int64_t row = 0; row < rows; row++) {
            float * of_row = scores + row * KEYS;
            float most = -INFINITY;
            ggml_vec_max_f32(KEYS, &most, of_row);
            if (most == -INFINITY) {
                std::fill_n(of_row, KEYS, 0.0f);
                continue;
            }
            if (most > largest[row]) {
                const float smaller = std::exp(largest[row] - most);
                ggml_vec_scale_f32(value_length, results + row * value_length, smaller);
                sums[row] *= smaller;
                largest[row] = most;
            }
            sums[row] += ggml_vec_soft_max_f32(KEYS, of_row, of_row, largest[row]);
        }
        read(work.values, key, count, head, kv_stream, values);
        simd_gemm(results, scores, values, (int) filled, (int) KEYS, (int) value_length);
    }

    for (int64_t row = 0; row < rows; row++) {
        const float part = sums[row] == 0.0f ? 0.0f : 1.0f / sums[row];
        char * data = static_cast<char *>(work.result->data) + (head * work.group + row / tokens) * work.result->nb[1] +
                      (first + row % tokens) * work.result->nb[2] + stream * work.result->nb[3];
        float * result = reinterpret_cast<float *>(data);
        for (int64_t i = 0; i < value_length; i++) {
            result[i] = results[row * value_length + i] * part;
        }
    }
}

// A context's instance: ggml's own CPU backend, whose threads do the work.
struct Instance {
    ggml_backend_t cpu    = nullptr;
    ggml_context * holder = nullptr;
    ggml_cgraph *  graph  = nullptr;
    int            threads = 1;
    float *        memory = nullptr;
    int64_t        floats = 0;
    const Work *   work   = nullptr;
    std::atomic<int64_t> next{0};

    ~Instance() {
        ::operator delete[](memory, LINE);
        ggml_free(holder);
        if (cpu) {
            ggml_backend_free(cpu);
        }
    }

    // Room for so many floats; false if there is none.
    bool reserve(int64_t wanted) {
        if (wanted > floats) {
            ::operator delete[](memory, LINE);
            memory = static_cast<float *>(::operator new[](wanted * sizeof(float), LINE, std::nothrow));
            floats = memory ? wanted : 0;
        }
        return memory != nullptr;
    }
};

// What each of ggml's threads does.
void take_part(ggml_tensor *, int thread, int, void * data) {
    Instance &   instance = *static_cast<Instance *>(data);
    const Work & work     = *instance.work;
    for (int64_t piece; (piece = instance.next.fetch_add(1)) < work.count();) {
        compute(work, piece, instance.memory + thread * work.memory());
    }
}

const char * name(ggml_backend_t) { return "Hearth_Prompts"; }

void free_instance(ggml_backend_t backend) {
    delete static_cast<Instance *>(backend->context);
    delete backend;
}

ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph * graph) {
    Instance & instance = *static_cast<Instance *>(backend->context);
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_FLASH_ATTN_EXT || (node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
            continue;
        }
        const Work work(node, instance.threads);
        if (!instance.reserve(work.memory() * instance.threads)) {
            return GGML_STATUS_ALLOC_FAILED;
        }
        instance.work = &work;
        instance.next = 0;
        const ggml_status status = ggml_backend_graph_compute(instance.cpu, instance.graph);
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    return GGML_STATUS_SUCCESS;
}

void set_threads(ggml_backend_t backend, int threads) {
    Instance & instance = *static_cast<Instance *>(backend->context);
    instance.threads = std::max(1, threads);
    ggml_backend_cpu_set_n_threads(instance.cpu, instance.threads);
}

ggml_backend_t create(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = { 'h', 'e', 'a', 'r', 't', 'h', ' ', 'p', 'r', 'o', 'm', 'p', 't', 's', 0, 1 };
    Instance *     instance = new (std::nothrow) Instance;
    ggml_backend * backend  = new (std::nothrow) ggml_backend{ &guid, {}, device, instance };
    if (instance && backend) {
        instance->cpu    = ggml_backend_cpu_init();
        instance->holder = ggml_init({ ggml_tensor_overhead() + ggml_graph_overhead_custom(1, false), nullptr, true });
    }
    if (!instance || !backend || !instance->cpu || !instance->holder) {
        delete backend;
        delete instance;
        return nullptr;
    }
    ggml_tensor * node =
        ggml_custom_4d(instance->holder, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, take_part, GGML_N_TASKS_MAX, instance);
    instance->graph = ggml_new_graph_custom(instance->holder, 1, false);
    ggml_build_forward_expand(instance->graph, node);
    backend->iface.get_name      = name;
    backend->iface.free          = free_instance;
    backend->iface.graph_compute = compute_graph;
    return backend;
}

const char * device_name(ggml_backend_dev_t) { return "Hearth_Prompts"; }

const char * description(ggml_backend_dev_t) { return "Attention of prompts on the CPU"; }

void no_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 0; }

enum ggml_backend_dev_type kind(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }

void properties(ggml_backend_dev_t device, ggml_backend_dev_props * out) {
    *out             = {};
    out->name        = device_name(device);
    out->description = description(device);
    out->type        = kind(device);
}

ggml_backend_buffer_type_t buffers(ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); }

// Keys or values that `read` can read.
bool readable(const ggml_tensor * tensor) {
    const bool known = tensor->type == GGML_TYPE_F32 || ggml_get_type_traits(tensor->type)->to_float != nullptr;
    return known && tensor->nb[0] == ggml_type_size(tensor->type) && tensor->ne[0] % ggml_blck_size(tensor->type) == 0;
}

bool takes(ggml_backend_dev_t, const ggml_tensor * node) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor * queries = node->src[0];
    const ggml_tensor * keys    = node->src[1];
    const ggml_tensor * values  = node->src[2];
    const ggml_tensor * mask    = node->src[3];
    const bool plain = ggml_get_op_params_f32(node, 1) == 0.0f && ggml_get_op_params_f32(node, 2) == 0.0f && !node->src[4];
    return plain && queries->type == GGML_TYPE_F32 && queries->nb[0] == sizeof(float) &&
           queries->ne[1] >= FEWEST_TOKENS && queries->ne[1] <= MOST_TOKENS &&
           readable(keys) && readable(values) && queries->ne[2] % keys->ne[2] == 0 && queries->ne[3] % keys->ne[3] == 0 &&
           values->ne[2] == keys->ne[2] && values->ne[3] == keys->ne[3] && node->type == GGML_TYPE_F32 &&
           ggml_is_contiguous(node) &&
           (!mask || (mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t) && mask->ne[2] == 1));
}

bool reads(ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return ggml_backend_buft_is_host(type); }

const char * registry_name(ggml_backend_reg_t) { return "Hearth_Prompts"; }

size_t device_count(ggml_backend_reg_t) { return 1; }

ggml_backend_dev_t device(ggml_backend_reg_t registry, size_t) { return static_cast<ggml_backend_dev_t>(registry->context); }

void * function(ggml_backend_reg_t, const char * wanted) {
    const bool known = std::strcmp(wanted, "ggml_backend_set_n_threads") == 0;
    return known ? reinterpret_cast<void *>(set_threads) : nullptr;
}

} // namespace

// Registers the device, which lives for ever. To be called once.
extern "C" void hearth_register_prompt_attention() {
    static ggml_backend_device the_device = {};
    static ggml_backend_reg    registry   = {};
    the_device.iface.get_name        = device_name;
    the_device.iface.get_description = description;
    the_device.iface.get_memory      = no_memory;
    the_device.iface.get_type        = kind;
    the_device.iface.get_props       = properties;
    the_device.iface.init_backend    = create;
    the_device.iface.get_buffer_type = buffers;
    the_device.iface.supports_op     = takes;
    the_device.iface.supports_buft   = reads;
    the_device.reg                   = &registry;
    registry.api_version            = GGML_BACKEND_API_VERSION;
    registry.iface.get_name         = registry_name;
    registry.iface.get_device_count = device_count;
    registry.iface.get_device       = device;
    registry.iface.get_proc_address = function;
    registry.context                = &the_device;
    ggml_backend_register(&registry);
}

#endif
