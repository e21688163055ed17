// llama.cpp's `common` as C functions: chat templates, the grammars that hold tool calls, the parsers of answers.
//
// Requests and results are JSON texts. No exception leaves this file: what fails gives a message instead. The Rust side
// (mod.rs beside this file) checks sizes and depths before it calls, since `common` recurses over what it is given.

#include "chat-auto-parser.h"
#include "chat.h"
#include "json-schema-to-grammar.h"
#include "json.h"
#include "log.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>

namespace {

// `common` writes to the terminal by a logger of its own. What matters comes back as a message.
void silence() {
    static std::once_flag once;
    std::call_once(once, [] { common_log_set_verbosity_thold(-1); });
}

// A copy that `hearth_chat_free` frees; null without memory.
char * copy(const std::string & text, size_t * length) {
    char * bytes = static_cast<char *>(std::malloc(text.size() + 1));
    if (bytes != nullptr) {
        std::memcpy(bytes, text.data(), text.size());
        bytes[text.size()] = '\0';
        *length = text.size();
    }
    return bytes;
}

// Runs `work`, which gives a text; returns whether it succeeded. `out` is the text or what is wrong.
template <typename Work>
bool guarded(char ** out, size_t * length, Work work) noexcept {
    *out    = nullptr;
    *length = 0;
    try {
        silence();
        try {
            *out = copy(work(), length);
            return *out != nullptr;
        } catch (const std::exception & error) {
            *out = copy(error.what(), length);
        } catch (...) {
            *out = copy("an exception without a message", length);
        }
    } catch (...) {
        // No memory for the message either.
    }
    return false;
}

std::string text_or_empty(const json & object, const char * key) {
    return object.contains(key) ? object.at(key).get<std::string>() : std::string();
}

bool flag(const json & object, const char * key) {
    return object.contains(key) && object.at(key).is_boolean() && object.at(key).get<bool>();
}

common_reasoning_format reasoning_format(const json & request) {
    return flag(request, "reasoning_apart") ? COMMON_REASONING_FORMAT_DEEPSEEK : COMMON_REASONING_FORMAT_NONE;
}

common_chat_templates_inputs inputs_of(const json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    if (request.contains("tools")) {
        inputs.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
    }
    inputs.tool_choice           = common_chat_tool_choice_parse_oaicompat(text_or_empty(request, "tool_choice"));
    inputs.parallel_tool_calls   = flag(request, "parallel_tool_calls");
    inputs.add_generation_prompt = flag(request, "add_generation_prompt");
    if (flag(request, "continue_final_message")) {
        inputs.continue_final_message = COMMON_CHAT_CONTINUATION_AUTO;
    }
    inputs.enable_thinking  = flag(request, "enable_thinking");
    inputs.reasoning_format = reasoning_format(request);
    inputs.json_schema      = text_or_empty(request, "json_schema");
    if (request.contains("variables")) {
        for (const auto & [key, value] : request.at("variables").items()) {
            inputs.chat_template_kwargs[key] = value.dump();
        }
    }
    if (inputs.tools.empty()) {
        // Templates ask whether it is none, as it is in Python; left out it would be undefined, which is not none.
        inputs.chat_template_kwargs["tools"] = "null";
    }
    return inputs;
}

json strings(const std::vector<std::string> & list) {
    json out = json::array();
    for (const auto & text : list) {
        out.push_back(text);
    }
    return out;
}

std::string described(const common_chat_params & params) {
    json triggers = json::array();
    for (const auto & trigger : params.grammar_triggers) {
        triggers.push_back({
            { "kind", static_cast<int>(trigger.type) },
            { "value", trigger.value },
        });
    }
    json out {
        { "prompt", params.prompt },
        { "generation_prompt", params.generation_prompt },
        { "format", static_cast<int>(params.format) },
        { "parser", params.parser },
        { "grammar", params.grammar },
        { "grammar_lazy", params.grammar_lazy },
        { "triggers", triggers },
        { "preserved", strings(params.preserved_tokens) },
        { "stops", strings(params.additional_stops) },
        { "thinks", params.supports_thinking },
        { "thinking_start", params.thinking_start_tag },
        { "thinking_ends", strings(params.thinking_end_tags) },
        { "borders", params.message_delimiters.to_json() },
    };
    return out.dump_safe();
}

std::string described(const common_chat_msg & message) {
    json calls = json::array();
    for (const auto & call : message.tool_calls) {
        calls.push_back({
            { "id", call.id },
            { "name", call.name },
            { "arguments", call.arguments },
        });
    }
    json out {
        { "reasoning", message.reasoning_content },
        { "content", message.render_content("") },
        { "tool_calls", calls },
    };
    return out.dump_safe();
}

// Whether `common` finds out by an analysis of the template, anew at each rendering, what answers look like. Templates that it
// knows have functions of their own instead, and these may change the messages.
bool is_analysed(const common_chat_templates * templates, const std::string & bos, const std::string & eos) {
    const common_chat_template source(common_chat_templates_source(templates), bos, eos);
    autoparser::generation_params params;
    params.messages = json::array();
    params.messages.push_back({
        { "role", "user" },
        { "content", "?" },
    });
    try {
        return !common_chat_try_specialized_template(source, source.source(), params).has_value();
    } catch (const std::exception &) {
        return false;
    }
}

} // namespace

struct hearth_chat_template {
    common_chat_templates_ptr templates;
};

struct hearth_chat_parser {
    common_chat_parser_params params;
};

extern "C" {

void hearth_chat_free(char * text) {
    std::free(text);
}

// Reads a template. `out` is a JSON text of what it can do, and of whether it `is_analysed`, or what is wrong.
bool hearth_chat_template_new(
    const char * source, size_t source_length,
    const char * bos, size_t bos_length,
    const char * eos, size_t eos_length,
    hearth_chat_template ** made, char ** out, size_t * length) {
    *made = nullptr;
    return guarded(out, length, [&] {
        auto result       = std::make_unique<hearth_chat_template>();
        // Without a text `common` would ask a model, and there is none.
        if (source_length == 0) {
            throw std::runtime_error("the template is empty");
        }
        const std::string text(source, source_length);
        const std::string begin(bos, bos_length);
        const std::string end(eos, eos_length);
        try {
            result->templates = common_chat_templates_init(nullptr, text, begin, end);
        } catch (const std::exception &) {
            // Its message is lost on the way; the template itself says what is wrong.
            common_chat_template again(text, begin, end);
            throw;
        }
        json caps = json::object();
        for (const auto & [name, has] : common_chat_templates_get_caps(result->templates.get())) {
            caps[name] = has;
        }
        caps["is_analysed"]   = is_analysed(result->templates.get(), begin, end);
        std::string described = caps.dump_safe();
        *made = result.release();
        return described;
    });
}

void hearth_chat_template_free(hearth_chat_template * made) {
    delete made;
}

// Renders a conversation. With `prompt_only` nothing but the prompt and the generation prompt is right, and for a template that
// `is_analysed`, in a conversation that does not go on with its final message, these are the same.
bool hearth_chat_render(
    const hearth_chat_template * made, const char * request, size_t request_length, bool prompt_only, char ** out,
    size_t * length) {
    return guarded(out, length, [&] {
        auto inputs = inputs_of(json::parse(std::string(request, request_length)));
        inputs.force_pure_content = prompt_only;
        return described(common_chat_templates_apply(made->templates.get(), inputs));
    });
}

// Reads a parser that `hearth_chat_render` described. On failure `out` says what is wrong.
bool hearth_chat_parser_new(
    const char * request, size_t request_length, hearth_chat_parser ** made, char ** out, size_t * length) {
    *made = nullptr;
    return guarded(out, length, [&] {
        const json description = json::parse(std::string(request, request_length));
        auto result            = std::make_unique<hearth_chat_parser>();
        auto & params          = result->params;
        params.format            = static_cast<common_chat_format>(description.at("format").get<int>());
        params.generation_prompt = text_or_empty(description, "generation_prompt");
        params.reasoning_format  = reasoning_format(description);
        const auto parser        = text_or_empty(description, "parser");
        if (!parser.empty()) {
            params.parser.load(parser);
        }
        *made = result.release();
        return std::string();
    });
}

void hearth_chat_parser_free(hearth_chat_parser * made) {
    delete made;
}

// Reads an answer, or with `partial` the beginning of one.
bool hearth_chat_parse(
    const hearth_chat_parser * made, const char * text, size_t text_length, bool partial, char ** out, size_t * length) {
    return guarded(out, length, [&] {
        return described(common_chat_parse(std::string(text, text_length), partial, made->params));
    });
}

// The grammar of the JSON that fits a schema.
bool hearth_chat_schema_grammar(const char * schema, size_t schema_length, char ** out, size_t * length) {
    return guarded(out, length, [&] {
        return json_schema_to_grammar(json::parse(std::string(schema, schema_length)), /* force_gbnf= */ true);
    });
}

} // extern "C"
