// Hidden states of a context, which the head for multi-token prediction (MTP) of a model takes. llama.cpp keeps these functions in
// a header of C++ that is not installed (`src/llama-ext.h`).

#include "llama-ext.h"

static constexpr int32_t EXCEPTION = -100;

extern "C" {

// Whether passes hand out the last hidden state of each token. If not, nothing is computed behind the last layer's attention
// but for the tokens whose logits are wanted.
void hearth_hidden_states(llama_context * context, bool wanted) {
    llama_set_embeddings_nextn(context, wanted, !wanted);
}

// The head's own context hands them out for tokens with logits.
void hearth_hidden_states_of_outputs(llama_context * context) {
    llama_set_embeddings_nextn(context, true, true);
}

// The hidden state of a token of the last pass, null if there is none.
const float * hearth_hidden_state(llama_context * context, int32_t index) noexcept {
    try {
        return llama_get_embeddings_nextn_ith(context, index);
    } catch (...) {
        return nullptr;
    }
}

// Computes a batch. Status 0, or that of `llama_process`.
int32_t hearth_mtp_compute(llama_context * context, llama_batch_ext * batch) noexcept {
    try {
        return llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch);
    } catch (...) {
        return EXCEPTION;
    }
}

}
