//! Renders a model's Jinja template as Hugging Face's `apply_chat_template` does.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;

use super::json::{Style, dumps};
use super::python;
use crate::engine::ModelInfo;

/// For models whose file has no template; most instruction-tuned models without one were trained on ChatML.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// Steps of the template engine: enough for thousands of messages, and the end of a template that loops.
const FUEL: u64 = 20_000_000;
/// Bytes of a prompt: beyond what any context holds, and the end of a template that writes without end.
const OUTPUT: usize = 64 << 20;
const NAME: &str = "chat_template";

/// A compiled template with the texts of its special tokens.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// What goes into a template.
#[derive(Debug, Clone, Default)]
pub struct RenderInput {
    /// Messages with `role`, `content` and whatever else the template reads, in the order of their keys.
    pub messages: Vec<serde_json::Value>,
    /// Tools as the client sent them; empty for none.
    pub tools: Vec<serde_json::Value>,
    /// Ends with the header of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// Why a template gave no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is broken.
    #[error("the model's chat template cannot be used: {0}")]
    Broken(String),
    /// The template refuses these messages, in its own words.
    #[error("the model's chat template refuses the messages: {0}")]
    Refused(String),
}

impl Template {
    /// The template of a model, ChatML if it has none.
    ///
    /// # Errors
    /// [`TemplateError::Broken`] when it cannot be compiled.
    pub fn of(info: &ModelInfo) -> Result<Self, TemplateError> {
        let source = info.chat_template.as_deref().unwrap_or(CHATML);
        Self::compile(source, &info.bos_token, &info.eos_token)
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// [`TemplateError::Broken`] with the line that is wrong.
    pub fn compile(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Broken(describe(&error)))?);
        environment.set_fuel(Some(FUEL));
        python::install(&mut environment);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned(NAME, without_generation(source))
            .map_err(|error| TemplateError::Broken(describe(&error)))?;
        Ok(Self {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] when the template raises an exception or runs for too long.
    pub fn render(&self, input: &RenderInput) -> Result<String, TemplateError> {
        let context = Context {
            variables: &input.variables,
            messages: &input.messages,
            tools: (!input.tools.is_empty()).then_some(&input.tools),
            add_generation_prompt: input.add_generation_prompt,
            bos_token: &self.bos,
            eos_token: &self.eos,
        };
        let mut out = Bounded(Vec::new());
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(Serde(&context), &mut out).map(drop))
            .map_err(|error| TemplateError::Refused(describe(&error)))?;
        String::from_utf8(out.0).map_err(|error| TemplateError::Broken(error.to_string()))
    }
}

/// The variables of a template. Of two with the same name the later one counts: a client cannot replace the messages.
#[derive(Serialize)]
struct Context<'a> {
    #[serde(flatten)]
    variables: &'a serde_json::Map<String, serde_json::Value>,
    messages: &'a [serde_json::Value],
    tools: Option<&'a Vec<serde_json::Value>>,
    add_generation_prompt: bool,
    bos_token: &'a str,
    eos_token: &'a str,
}

/// Memory that takes [`OUTPUT`] bytes.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT {
            return Err(io::Error::other(format!("the prompt is longer than {OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What went wrong and where, in one line.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// `{% generation %}` marks what is learnt in training; it prints nothing. Conditions that always hold take its place,
/// so that white space around it is trimmed as around any tag.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("%}") else { break };
        let inside = &tag[2..end];
        let name = inside.trim_matches(['-', '+']).trim();
        let instead = match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            name => name,
        };
        out.push_str(before);
        if instead == name {
            out.push_str(&tag[..end + 2]);
        } else {
            out.push_str("{%");
            out.push_str(&inside.replacen(name, instead, 1));
            out.push_str("%}");
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

/// The filter `tojson`, with the arguments of Python's `json.dumps`.
fn tojson(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let style = Style {
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: kwargs.get::<Option<usize>>("indent")?.map(|indent| indent.min(16)),
        separators: kwargs
            .get::<Option<Vec<String>>>("separators")?
            .and_then(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone()))),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let json =
        serde_json::to_value(&value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(dumps(&json, &style)))
}

/// Today's date in the few formats that templates ask for, in UTC.
fn strftime_now(format: String) -> Result<String, Error> {
    let now = time::OffsetDateTime::now_utc();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = chars.next();
        // `%-d` is glibc's way to leave out the padding.
        let pads = spec != Some('-');
        if !pads {
            spec = chars.next();
        }
        let two = |number: u8| {
            if pads {
                format!("{number:02}")
            } else {
                number.to_string()
            }
        };
        let short = |name: String| name.chars().take(3).collect();
        let hour = match now.hour() % 12 {
            0 => 12,
            hour => hour,
        };
        let text = match spec {
            Some('Y') => now.year().to_string(),
            Some('y') => format!("{:02}", now.year().rem_euclid(100)),
            Some('m') => two(now.month().into()),
            Some('d') => two(now.day()),
            Some('e') => format!("{:>2}", now.day()),
            Some('B') => now.month().to_string(),
            Some('b' | 'h') => short(now.month().to_string()),
            Some('A') => now.weekday().to_string(),
            Some('a') => short(now.weekday().to_string()),
            Some('H') => two(now.hour()),
            Some('I') => two(hour),
            Some('p') => (if now.hour() < 12 { "AM" } else { "PM" }).to_owned(),
            Some('M') => two(now.minute()),
            Some('S') => two(now.second()),
            Some('F') => format!("{}-{:02}-{:02}", now.year(), u8::from(now.month()), now.day()),
            Some('T') => format!("{:02}:{:02}:{:02}", now.hour(), now.minute(), now.second()),
            Some('j') => format!("{:03}", now.ordinal()),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            _ => {
                let problem = format!("strftime_now does not know %{}", spec.unwrap_or(' '));
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        };
        out.push_str(&text);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(template: &str, messages: serde_json::Value, expect: &str) {
        let template = Template::compile(template, "<s>", "</s>").unwrap();
        let input = RenderInput {
            messages: messages.as_array().unwrap().clone(),
            tools: vec![json!({"name": "f", "description": "a <b> & 'c'"})],
            add_generation_prompt: true,
            variables: json!({"enable_thinking": false}).as_object().unwrap().clone(),
        };
        assert_eq!(template.render(&input).as_deref(), Ok(expect));
    }

    #[test]
    fn renders_the_constructs_that_templates_use() {
        let two =
            json!([{"role": "user", "content": " hi "}, {"role": "assistant", "content": "<think>\nx\n</think>\nyes"}]);
        check(
            CHATML,
            json!([{"role": "user", "content": "hi"}]),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        );
        check(
            "{{ bos_token }}{{ messages[0]['content'] | trim }}{{ eos_token }}",
            two.clone(),
            "<s>hi</s>",
        );
        check(
            "{{ messages[-1].content.split('</think>')[-1].lstrip('\\n') }}",
            two.clone(),
            "yes",
        );
        check(
            "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role[0] }}{% endfor %}",
            two.clone(),
            "0a1u",
        );
        check(
            "{%- set ns = namespace(n=0) -%}\n{%- for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            two.clone(),
            "2",
        );
        check(
            "{% if enable_thinking is defined and enable_thinking is false %}off{% endif %}",
            two.clone(),
            "off",
        );
        check(
            "{% if not (messages[0].content is string) %}no{% else %}yes{% endif %}",
            two.clone(),
            "yes",
        );
        check(
            "{{ tools[0] | tojson }}",
            two.clone(),
            r#"{"name": "f", "description": "a <b> & 'c'"}"#,
        );
        check(
            "{{ tools | tojson(indent=1) }}",
            two.clone(),
            "[\n {\n  \"name\": \"f\",\n  \"description\": \"a <b> & 'c'\"\n }\n]",
        );
        check(
            "{% for k, v in tools[0].items() %}{{ k }}={{ v | length }};{% endfor %}",
            two.clone(),
            "name=1;description=11;",
        );
        check("a{% generation %} b {%- endgeneration %}c", two.clone(), "a bc");
        check(
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
            two.clone(),
            "assistant",
        );
        check(
            "{{ '%d-%s' | format(3, 'x') }}{{ none_here.x if none_here else '' }}",
            two,
            "3-x",
        );
    }

    #[test]
    fn a_template_can_refuse() {
        let template = Template::compile("{{ raise_exception('only users') }}", "", "").unwrap();
        let refused = template.render(&RenderInput::default()).unwrap_err();
        assert_eq!(
            refused,
            TemplateError::Refused("only users (line 1 of the template)".into())
        );
        assert!(matches!(
            Template::compile("{% if %}", "", ""),
            Err(TemplateError::Broken(_))
        ));
    }

    #[test]
    fn a_template_that_loops_ends() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        let template = Template::compile(source, "", "").unwrap();
        assert!(matches!(
            template.render(&RenderInput::default()),
            Err(TemplateError::Refused(_))
        ));
    }

    #[test]
    fn a_prompt_has_a_limit() {
        let source = "{% for a in range(50000) %}{{ 'x' * 10000 }}{% endfor %}";
        let template = Template::compile(source, "", "").unwrap();
        assert!(matches!(
            template.render(&RenderInput::default()),
            Err(TemplateError::Refused(_))
        ));
    }

    #[test]
    fn a_client_cannot_replace_the_messages() {
        let template = Template::compile("{{ messages[0].content }}{{ x }}", "", "").unwrap();
        let input = RenderInput {
            messages: vec![json!({"role": "user", "content": "a"})],
            variables: json!({"messages": [], "x": "b"}).as_object().unwrap().clone(),
            ..RenderInput::default()
        };
        assert_eq!(template.render(&input).as_deref(), Ok("ab"));
    }

    #[test]
    fn dates_are_written() {
        assert_eq!(strftime_now("%Y%%".into()).unwrap().len(), 5);
        assert_eq!(
            strftime_now("%-d".into()).unwrap().trim_start_matches('0').len(),
            strftime_now("%-d".into()).unwrap().len()
        );
        assert_eq!(strftime_now("%F".into()).ok(), strftime_now("%Y-%m-%d".into()).ok());
        assert!(strftime_now("%Q".into()).is_err());
    }
}
