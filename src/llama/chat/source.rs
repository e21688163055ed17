//! Templates in the form that llama.cpp's Jinja engine reads.

use std::borrow::Cow;

/// Puts something in the place of `{% generation %}`, which marks what is learnt in training and prints nothing: conditions that
/// always hold, so that white space around it is trimmed as around any tag.
pub(super) fn readable(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
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
    out.into()
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn marks_of_training_go() {
        for (source, expect) in [
            ("a {{ add_generation_prompt }}", "a {{ add_generation_prompt }}"),
            ("{% generation %}x{%- endgeneration -%}", "{% if true %}x{%- endif -%}"),
            (
                "{%-generation%}{% if generation %}{% endif %}",
                "{%-if true%}{% if generation %}{% endif %}",
            ),
            ("{% generation", "{% generation"),
        ] {
            assert_eq!(readable(source), expect);
        }
    }
}
