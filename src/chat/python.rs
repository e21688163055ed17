//! Where minijinja, even with `pycompat`, is not Python: tests and methods that chat templates rely on.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Makes templates see what Python's Jinja2 shows them.
pub(super) fn install(environment: &mut Environment<'_>) {
    // `tools is iterable and tools | length > 0` must not ask for the length of none.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    // Whatever has a length and can be indexed.
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined
        )
    });
    // `message.tool_calls | length > 0` where there are none: nothing has the length 0.
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.set_unknown_method_callback(method);
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        let problem = format!("a value of type {} has no length", value.kind());
        Error::new(ErrorKind::InvalidOperation, problem)
    })
}

fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = text_method(text, name, args)
    {
        return Ok(result);
    }
    unknown_method_callback(state, value, name, args)
}

/// Methods of `str` that `pycompat` has not; `None` for any other, or for arguments that they do not take.
fn text_method(text: &str, name: &str, args: &[Value]) -> Option<Value> {
    let argument = |index: usize| args.get(index).and_then(Value::as_str).filter(|text| !text.is_empty());
    let three = |parts: [&str; 3]| Value::from(parts.map(Value::from).to_vec());
    Some(match (name, args.len()) {
        ("partition", 1) => {
            let separator = argument(0)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            let found = if before.len() < text.len() { separator } else { "" };
            three([before, found, after])
        }
        ("rpartition", 1) => {
            let separator = argument(0)?;
            match text.rsplit_once(separator) {
                Some((before, after)) => three([before, separator, after]),
                None => three(["", "", text]),
            }
        }
        ("removeprefix", 1) => text.strip_prefix(args[0].as_str()?).unwrap_or(text).into(),
        ("removesuffix", 1) => text.strip_suffix(args[0].as_str()?).unwrap_or(text).into(),
        ("rsplit", 1 | 2) => {
            let separator = argument(0)?;
            let limit = match args.get(1) {
                Some(limit) => usize::try_from(i64::try_from(limit.clone()).ok()?).unwrap_or(usize::MAX),
                None => usize::MAX,
            };
            let mut parts: Vec<Value> = text
                .rsplitn(limit.saturating_add(1), separator)
                .map(Value::from)
                .collect();
            parts.reverse();
            parts.into()
        }
        ("zfill", 1) => {
            let width = usize::try_from(i64::try_from(args[0].clone()).ok()?)
                .unwrap_or(0)
                .min(1024);
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let zeros = width.saturating_sub(text.chars().count());
            format!("{sign}{}{digits}", "0".repeat(zeros)).into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each expectation is what Python's Jinja2 prints.
    #[test]
    fn values_behave_as_in_python() {
        let mut environment = Environment::new();
        install(&mut environment);
        for (template, expect) in [
            (
                "{{ none is iterable }} {{ [] is iterable }} {{ 'a' is iterable }} {{ {} is iterable }} {{ 1 is iterable }}",
                "False True True True False",
            ),
            (
                "{{ none is sequence }} {{ [] is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is sequence }}",
                "False True True True False",
            ),
            ("{{ 'a: b: c'.partition(': ') | join('|') }}", "a|: |b: c"),
            ("{{ 'abc'.partition(':') | join('|') }}", "abc||"),
            ("{{ 'a: b: c'.rpartition(': ') | join('|') }}", "a: b|: |c"),
            ("{{ 'abc'.rpartition(':') | join('|') }}", "||abc"),
            ("{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('x') }}", "bcabc"),
            (
                "{{ 'a.b.c'.rsplit('.', 1) | join('|') }} {{ 'a.b.c'.rsplit('.') | join('|') }}",
                "a.b|c a|b|c",
            ),
            ("{{ '-7'.zfill(4) }} {{ '1234'.zfill(3) }}", "-007 1234"),
            ("{{ 'Ab'.lower() }}", "ab"),
            (
                "{{ nothing | length }} {{ 'wörld' | length }} {{ [1] | count }} {{ {'a': 1} | length }}",
                "0 5 1 1",
            ),
        ] {
            let found = environment
                .template_from_str(template)
                .and_then(|template| template.render(()));
            assert_eq!(
                found
                    .ok()
                    .map(|text| text.replace("true", "True").replace("false", "False"))
                    .as_deref(),
                Some(expect),
                "{template}"
            );
        }
    }
}
