//! Tables for Markdown and HTML.

use std::fmt::Write;

use super::text::{markdown, xml};

/// Rows of text under a header. Columns that hold numbers are aligned to the right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Whether all cells of a column begin like numbers or are `-`.
    #[must_use]
    pub fn is_number(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some()
            && cells.all(|cell| {
                cell == "-"
                    || cell
                        .trim_start_matches('-')
                        .starts_with(|first: char| first.is_ascii_digit())
            })
    }

    /// The table in Markdown, a line per row.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| markdown(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut out = line(&self.header);
        for column in 0..self.header.len() {
            out.push_str(if self.is_number(column) { "|---:" } else { "|---" });
        }
        out.push_str("|\n");
        for row in &self.rows {
            out.push_str(&line(row));
        }
        out
    }

    /// The table as HTML that is also well-formed XML.
    #[must_use]
    pub fn html(&self) -> String {
        let class = |column| {
            if self.is_number(column) {
                " class=\"number\""
            } else {
                ""
            }
        };
        let mut out = "<table>\n<thead><tr>".to_owned();
        for (column, cell) in self.header.iter().enumerate() {
            let _ = write!(out, "<th{}>{}</th>", class(column), xml(cell));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let _ = write!(out, "<td{}>{}</td>", class(column), xml(cell));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_on_the_right() {
        let table = Table {
            header: vec!["model|name".into(), "tokens/s".into()],
            rows: vec![vec!["a<b>".into(), "12.5".into()], vec!["c".into(), "-".into()]],
        };
        assert_eq!(
            table.markdown(),
            "| model\\|name | tokens/s |\n|---|---:|\n| a\\<b\\> | 12.5 |\n| c | - |\n"
        );
        let html = table.html();
        let document = roxmltree::Document::parse(&html).unwrap();
        let cells: Vec<(Option<&str>, &str)> = document
            .descendants()
            .filter(|node| node.has_tag_name("td"))
            .map(|node| (node.attribute("class"), node.text().unwrap()))
            .collect();
        assert_eq!(
            cells,
            [
                (None, "a<b>"),
                (Some("number"), "12.5"),
                (None, "c"),
                (Some("number"), "-")
            ]
        );
    }
}
