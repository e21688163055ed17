//! Reads one answer while it grows: what is reasoning, content, a call.
//!
//! The parser of `common` reads the whole text anew each time, so it is asked as rarely as possible: inside a thought, and
//! in content without a character that may begin something else, new text is passed on as it is. The last parse, of the
//! complete answer, is always made.

use std::collections::VecDeque;
use std::ops::Range;

use super::depth::Brackets;
use super::output::Piece;
use crate::engine::TokenLogprob;
use crate::llama::chat::{ChatError, Message};

/// What is known of the form of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Form {
    /// The end of the prompt, with which the parser's input begins.
    pub(super) generation_prompt: String,
    /// What opens a thought; empty if thoughts are not told apart.
    pub(super) thinking_start: String,
    pub(super) thinking_ends: Vec<String>,
    /// Characters with which something else than content may begin, beside the usual ones.
    pub(super) hazards: String,
    /// Texts with which calls begin.
    pub(super) calls: Vec<String>,
    /// Names of the tools that may be called.
    pub(super) tools: Vec<String>,
    /// What the parser reads in the prompt's end: of a message that is continued, what is there already.
    pub(super) before: Message,
}

/// A text to be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) text: String,
    /// The answer is not complete, or was cut off.
    pub(super) partial: bool,
    /// The answer is complete.
    last: bool,
    /// Bytes of the answer that it covers.
    covers: usize,
    tokens: u32,
}

impl Job {
    pub(super) fn is_last(&self) -> bool {
        self.last
    }
}

#[derive(Debug)]
pub(super) struct Reader {
    form: Form,
    /// The whole answer, control tokens that the parser needs included.
    text: String,
    state: State,
    /// Bytes of `text` that are dealt with.
    done: usize,
    brackets: Brackets,
    /// The thought that is left out of what the parser reads.
    thought: Option<Range<usize>>,
    /// What was told of the parser's reasoning, of the content and of the calls.
    reasoning: String,
    content: String,
    calls: Vec<Call>,
    /// End of the content that was told, in `text`.
    content_end: usize,
    pieces: VecDeque<Piece>,
    tokens: u32,
    reasoning_tokens: u32,
    /// Whether that number is final: something came behind the thought.
    counted: bool,
    /// Until then: bytes and tokens of the answer after each piece that only the parser can read.
    marks: Vec<(usize, u32)>,
    /// Texts of `text` with how likely their tokens were.
    logprobs: VecDeque<(Range<usize>, Vec<TokenLogprob>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The parser must read what is new.
    Parsed,
    /// Inside a thought that began at this byte.
    Thinking { body: usize },
    /// The answer ends with content, and harmless characters go on with it.
    Content,
    /// Nothing is parsed any more: all is content.
    Raw,
}

#[derive(Debug)]
struct Call {
    /// What was told of the arguments.
    arguments: String,
}

impl Reader {
    pub(super) fn new(form: Form) -> Self {
        Self {
            reasoning: form.before.reasoning.clone(),
            content: form.before.content.clone(),
            form,
            text: String::new(),
            state: State::Parsed,
            done: 0,
            brackets: Brackets::new(),
            thought: None,
            calls: Vec::new(),
            content_end: 0,
            pieces: VecDeque::new(),
            tokens: 0,
            reasoning_tokens: 0,
            counted: false,
            marks: Vec::new(),
            logprobs: VecDeque::new(),
        }
    }

    /// The next piece that is ready.
    pub(super) fn take(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }

    /// Whether no piece is ready.
    pub(super) fn is_quiet(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether there is text that only the parser can read.
    pub(super) fn wants_parser(&self) -> bool {
        self.state == State::Parsed && self.done < self.text.len()
    }

    pub(super) fn reasoning_tokens(&self) -> u32 {
        self.reasoning_tokens
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// More of the answer, with the number of its tokens.
    pub(super) fn push(&mut self, text: &str, tokens: usize, logprobs: Vec<TokenLogprob>) {
        let start = self.text.len();
        self.text.push_str(text);
        self.tokens += u32::try_from(tokens).unwrap_or(u32::MAX);
        if !self.counted && self.state == State::Parsed {
            self.marks.push((self.text.len(), self.tokens));
        }
        if !logprobs.is_empty() {
            self.logprobs.push_back((start..self.text.len(), logprobs));
        }
        self.advance();
    }

    /// Deals with new text as far as it goes without the parser.
    fn advance(&mut self) {
        match self.state {
            State::Parsed => {}
            State::Thinking { body } => self.think(body),
            State::Content => self.go_on_with_content(),
            State::Raw => self.tell_rest(),
        }
    }

    /// What the parser must read now, if anything; the answer goes on.
    pub(super) fn job(&mut self) -> Option<Job> {
        if !self.wants_parser() {
            return None;
        }
        if !self.brackets.push(&self.text[self.done..]) {
            tracing::debug!("brackets are nested too deep: the rest of the answer is content");
            self.give_up();
            return None;
        }
        self.done = self.text.len();
        Some(self.covering(true, false))
    }

    /// The last job, when the answer is complete; `cut` if it ends where it is only because it grew too long.
    pub(super) fn last_job(&mut self, cut: bool) -> Option<Job> {
        // What was held back of a thought is white space, or the beginning of its end.
        if matches!(self.state, State::Thinking { .. } | State::Raw) {
            return None;
        }
        self.state = State::Parsed;
        if self.done < self.text.len() && !self.brackets.push(&self.text[self.done..]) {
            self.give_up();
            return None;
        }
        self.done = self.text.len();
        Some(self.covering(cut, true))
    }

    fn covering(&self, partial: bool, last: bool) -> Job {
        let text = match &self.thought {
            Some(thought) => [&self.text[..thought.start], &self.text[thought.end..]].concat(),
            None => self.text.clone(),
        };
        Job {
            text,
            partial,
            last,
            covers: self.text.len(),
            tokens: self.tokens,
        }
    }

    /// What the parser made of a job while the answer goes on.
    pub(super) fn parsed(&mut self, job: &Job, result: Result<Message, ChatError>) {
        // More text may make sense of it.
        let Ok(message) = result else { return };
        self.tell(&message, job, false);
        if self.begins_thought(&message, job) {
            return self.advance();
        }
        let ends_with_content = message.tool_calls.is_empty()
            && self.content.trim_end().len() == message.content.trim_end().len()
            && ends_with_tail_of(&self.text[..job.covers], message.content.trim_end());
        if ends_with_content {
            self.state = State::Content;
            // White space at the end was held back.
            self.done = self.text[..job.covers].trim_end().len();
            self.content_end = self.done;
            self.content.truncate(self.content.trim_end().len());
            self.advance();
        }
    }

    /// What the parser made of the last job. `Err` asks for a second look, with the job that is returned.
    pub(super) fn parsed_last(&mut self, job: Job, result: Result<Message, ChatError>) -> Option<Job> {
        match result {
            Ok(message) => {
                self.tell(&message, &job, true);
                if !job.partial && !self.has_calls() {
                    self.tell_unread_call();
                }
            }
            Err(error) if !job.partial => {
                tracing::debug!(%error, "the answer is not in the form of its template");
                return Some(Job { partial: true, ..job });
            }
            Err(_) => self.give_up(),
        }
        None
    }

    /// The second look at an answer that is not in the form that the parser expects: calls that are there stay, else all is
    /// content.
    pub(super) fn parsed_malformed(&mut self, job: &Job, result: Result<Message, ChatError>) {
        match result {
            Ok(message) if self.has_calls() => self.tell(&message, job, true),
            _ => self.give_up(),
        }
    }

    /// A call that the parser passes over, as it is not complete, is content.
    fn tell_unread_call(&mut self) {
        let rest = &self.text[self.content_end..];
        let starts = self.form.calls.iter().filter_map(|call| rest.find(call.as_str()));
        if let Some(start) = starts.min() {
            self.tell_content(self.content_end + start..self.text.len());
        }
    }

    /// Nothing is parsed any more.
    pub(super) fn give_up(&mut self) {
        self.state = State::Raw;
        if self.has_calls() {
            // What belongs to a call is told already, or is none.
            self.content_end = self.content_end.max(self.done);
        } else if let Some(thought) = &self.thought {
            let end = &self.text[thought.end..];
            let tag = self.form.thinking_ends.iter().find(|tag| end.starts_with(tag.as_str()));
            let after = thought.end + tag.map_or(0, String::len);
            let blank = self.text[after..].len() - self.text[after..].trim_start().len();
            self.content_end = self.content_end.max(after + blank);
        }
        self.tell_rest();
    }

    /// Tells all text that was not told yet as content.
    fn tell_rest(&mut self) {
        let rest = self.content_end..self.text.len();
        self.done = self.text.len();
        self.tell_content(rest);
    }

    /// Tells what a message has more than was told.
    fn tell(&mut self, message: &Message, job: &Job, last: bool) {
        if let Some(more) = news(&self.reasoning, trimmed(&message.reasoning, true)) {
            let more = if self.reasoning.is_empty() && self.thought.is_none() {
                more.trim_start()
            } else {
                more
            };
            let text = more.to_owned();
            trimmed(&message.reasoning, true).clone_into(&mut self.reasoning);
            if !text.is_empty() {
                self.pieces.push_back(Piece::Reasoning { text });
            }
        }
        self.count_reasoning(message, job);
        // White space before a call, or what may become one, is not worth telling.
        let content = trimmed(&message.content, !last || !message.tool_calls.is_empty());
        if let Some(text) = news(&self.content, content).filter(|text| !text.is_empty()) {
            let text = text.to_owned();
            self.content.push_str(&text);
            let found = self.text[self.content_end..job.covers].find(&text);
            let start = self.content_end + found.unwrap_or(0);
            let end = found.map_or(self.content_end, |_| start + text.len());
            self.content_end = end;
            let logprobs = self.take_logprobs(start..end);
            self.pieces.push_back(Piece::Content {
                text,
                tokens: Vec::new(),
                logprobs,
            });
        }
        for (index, call) in message.tool_calls.iter().enumerate() {
            let complete = last || index + 1 < message.tool_calls.len();
            self.tell_call(index, call, complete);
        }
    }

    /// Takes note of how many tokens the thought has, until something comes behind it.
    fn count_reasoning(&mut self, message: &Message, job: &Job) {
        if self.counted {
            return;
        }
        let thought = message.reasoning.trim();
        if !message.content.is_empty() || !message.tool_calls.is_empty() {
            self.counted = true;
            let marks = std::mem::take(&mut self.marks);
            // A thought that is left out of what the parser reads was counted as it came.
            let Some(start) = self.text.find(thought).filter(|_| !thought.is_empty()) else {
                return;
            };
            let thought_end = start + thought.len();
            let rest = &self.text[thought_end..];
            let ends = self.form.thinking_ends.iter();
            let tag = ends.filter_map(|tag| Some(rest.find(tag.as_str())? + tag.len())).min();
            let end = thought_end + tag.unwrap_or(0);
            if let Some((_, tokens)) = marks.iter().find(|(bytes, _)| *bytes >= end) {
                self.reasoning_tokens = *tokens;
            }
        } else if !thought.is_empty() {
            self.reasoning_tokens = job.tokens;
        }
    }

    fn tell_call(&mut self, index: usize, call: &crate::llama::chat::ToolCall, complete: bool) {
        if index == self.calls.len() {
            // A name may be the beginning of a longer one.
            let is_tool = self.form.tools.contains(&call.name);
            let may_grow = self
                .form
                .tools
                .iter()
                .any(|tool| tool.starts_with(&call.name) && *tool != call.name);
            if !complete && (!is_tool || (may_grow && call.arguments.len() < 2)) {
                return;
            }
            self.calls.push(Call {
                arguments: String::new(),
            });
            self.pieces.push_back(Piece::ToolCallStart {
                index,
                id: if call.id.is_empty() { new_id() } else { call.id.clone() },
                name: call.name.clone(),
            });
        }
        let Some(told) = self.calls.get_mut(index) else { return };
        // Arguments are an object, also where the model wrote none.
        let arguments = if complete && call.arguments.trim().is_empty() {
            "{}"
        } else {
            call.arguments.as_str()
        };
        if let Some(text) = news(&told.arguments, arguments).filter(|text| !text.is_empty()) {
            let text = text.to_owned();
            told.arguments.push_str(&text);
            self.pieces.push_back(Piece::ToolCallArguments { index, text });
        }
    }

    /// Whether the answer is inside a thought, as the parser sees it; if so, it is read without the parser until its end.
    fn begins_thought(&mut self, message: &Message, job: &Job) -> bool {
        let form = &self.form;
        if form.thinking_start.is_empty() || form.thinking_ends.is_empty() || self.thought.is_some() {
            return false;
        }
        let text = &self.text[..job.covers];
        let body = if form.generation_prompt.trim_end().ends_with(&form.thinking_start) {
            0
        } else {
            let blank = text.len() - text.trim_start().len();
            match text[blank..].strip_prefix(&form.thinking_start) {
                Some(rest) => text.len() - rest.len(),
                None => return false,
            }
        };
        let thought = text[body..].trim();
        // All of it, and nothing else, is reasoning.
        let agrees = !thought.is_empty()
            && message.reasoning.trim() == thought
            && message.content.is_empty()
            && message.tool_calls.is_empty()
            && form.before == Message::default();
        if agrees {
            self.done = body + text[body..].trim_end().len();
            self.state = State::Thinking { body };
        }
        agrees
    }

    /// Tells more of a thought, up to what may be its end.
    fn think(&mut self, body: usize) {
        // An end that was cut in two has its beginning in what was held back.
        let new = &self.text[self.done..];
        let ends = self.form.thinking_ends.iter();
        let end = ends.filter_map(|tag| new.find(tag.as_str())).min();
        if let Some(end) = end {
            let end = self.done + end;
            self.tell_thought(self.done..end);
            self.thought = Some(body..end);
            // The parser reads the answer without it from here on.
            self.reasoning.clear();
            self.done = end;
            self.content_end = end;
            self.state = State::Parsed;
            return;
        }
        self.reasoning_tokens = self.tokens;
        let held = self.form.thinking_ends.iter().map(|tag| possible(new, tag)).max();
        let sure = &new[..new.len() - held.unwrap_or(0)];
        let sure = self.done + sure.trim_end().len();
        self.tell_thought(self.done..sure);
        self.done = sure;
    }

    fn tell_thought(&mut self, range: Range<usize>) {
        self.reasoning_tokens = self.tokens;
        let start = range.start.max(self.done);
        let text = self.text[start..range.end.max(start)].trim_end();
        if !text.is_empty() {
            self.pieces.push_back(Piece::Reasoning { text: text.to_owned() });
        }
    }

    /// Tells more content, up to a character with which something else may begin.
    fn go_on_with_content(&mut self) {
        let new = &self.text[self.done..];
        let hazard = new.find(|c| is_hazard(c) || self.form.hazards.contains(c));
        let sure = self.done + new[..hazard.unwrap_or(new.len())].trim_end().len();
        let range = self.done..sure;
        self.content.push_str(&self.text[range.clone()]);
        if hazard.is_some() {
            self.state = State::Parsed;
        }
        // Brackets are hazards: there is none to count.
        self.done = sure;
        self.tell_content(range);
    }

    fn tell_content(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.content_end = range.end;
        let text = self.text[range.clone()].to_owned();
        let logprobs = self.take_logprobs(range);
        self.pieces.push_back(Piece::Content {
            text,
            tokens: Vec::new(),
            logprobs,
        });
    }

    /// The probabilities of the tokens of a part of the answer; those before it belong to no content.
    fn take_logprobs(&mut self, range: Range<usize>) -> Vec<TokenLogprob> {
        let mut taken = Vec::new();
        while let Some((part, _)) = self.logprobs.front()
            && part.start < range.end
        {
            if let Some((part, logprobs)) = self.logprobs.pop_front()
                && part.end > range.start
            {
                taken.extend(logprobs);
            }
        }
        taken
    }
}

/// What `now` has more than `told`; `None` if it does not begin with it: what was told cannot be taken back.
fn news<'n>(told: &str, now: &'n str) -> Option<&'n str> {
    now.strip_prefix(told)
}

fn trimmed(text: &str, trims: bool) -> &str {
    if trims { text.trim_end() } else { text }
}

/// Whether a text ends with the end of the content: then the parser is inside the content.
fn ends_with_tail_of(text: &str, content: &str) -> bool {
    const TAIL: usize = 32;
    let mut start = content.len().saturating_sub(TAIL);
    while !content.is_char_boundary(start) {
        start += 1;
    }
    !content.is_empty() && text.trim_end().ends_with(&content[start..])
}

/// Bytes at the end of a text that may be the beginning of a tag.
fn possible(text: &str, tag: &str) -> usize {
    let longest = (tag.len() - 1).min(text.len());
    let begins = |length: &usize| text.as_bytes().ends_with(&tag.as_bytes()[..*length]);
    (1..=longest).rev().find(begins).unwrap_or(0)
}

/// Characters with which the calls, thoughts and channels of known templates begin.
fn is_hazard(c: char) -> bool {
    matches!(c, '<' | '[' | '{' | '`' | '|' | '>' | '(' | ']' | '}' | '\u{ff5c}')
        || c.is_control() && c != '\n' && c != '\t'
}

/// Nine letters and digits: templates of the Mistral family take no other ids.
fn new_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(9).collect()
}

#[cfg(test)]
mod tests;
