//! Calls that are required come at once: no content before them.

use serde_json::Value;

/// The grammar of a required call without a place for content before it; as it is where that place is not found.
///
/// `common` writes a grammar as its parser goes, and names the rule of a text that ends at a delimiter after the text's number
/// in the parser: `until-17`. Those that the parser tags as content are emptied.
pub(super) fn without_content(grammar: &str, parser: &str) -> String {
    let Ok(parser) = serde_json::from_str::<Value>(parser) else {
        return grammar.to_owned();
    };
    let nodes = parser["parsers"].as_array().map_or(&[][..], Vec::as_slice);
    let texts: Vec<String> = nodes
        .iter()
        .filter(|node| node["type"] == "tag" && node["tag"] == "content")
        .filter_map(|node| {
            let child = node["child"].as_u64()?;
            let is_text = nodes.get(usize::try_from(child).ok()?)?["type"] == "until";
            is_text.then(|| format!("until-{child} ::= "))
        })
        .collect();
    let lines = grammar.lines().map(|line| {
        let rule = texts.iter().find(|rule| line.starts_with(rule.as_str()));
        // Models begin a new line before a call.
        rule.map_or_else(|| line.to_owned(), |rule| format!("{rule}[ \\n]{{0,2}}"))
    });
    lines.collect::<Vec<String>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_content_is_emptied() {
        let parser = json!({"parsers": [
            {"type": "until", "delimiters": ["</think>"]},
            {"type": "tag", "child": 0, "tag": "reasoning"},
            {"type": "until", "delimiters": ["<tool_call>"]},
            {"type": "tag", "child": 2, "tag": "content"},
        ]});
        let grammar = "root ::= until-0 until-2? \"<tool_call>\"\nuntil-0 ::= | [<] until-0-01\nuntil-2 ::= | [<] until-2-01\nuntil-2-01 ::= \"a\"\n";
        let expect = "root ::= until-0 until-2? \"<tool_call>\"\nuntil-0 ::= | [<] until-0-01\nuntil-2 ::= [ \\n]{0,2}\nuntil-2-01 ::= \"a\"\n";
        assert_eq!(without_content(grammar, &parser.to_string()), expect);
        assert_eq!(without_content(grammar, "?"), grammar);
    }
}
