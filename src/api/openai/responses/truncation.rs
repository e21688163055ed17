//! `truncation: auto`: a conversation that is too long loses its oldest turns.

use crate::api::error::ApiError;
use crate::engine::EngineError;
use crate::generation::{ChatBackend, ChatRequest, GenerationError, Message, OutputStream, Role};

/// A conversation is made shorter so often at most.
const ATTEMPTS: usize = 8;

/// Begins an answer; what does not fit is left out if the request allows that.
pub(super) async fn chat(
    backend: &dyn ChatBackend,
    mut request: ChatRequest,
    truncates: bool,
) -> Result<OutputStream, ApiError> {
    let about_input = |error: GenerationError| ApiError::from(error).about("input");
    if !truncates {
        return backend.chat(request).await.map_err(about_input);
    }
    for _ in 0..ATTEMPTS {
        let error = match backend.chat(request.clone()).await {
            Ok(outputs) => return Ok(outputs),
            Err(error) => error,
        };
        let Some(excess) = excess(&error) else {
            return Err(about_input(error));
        };
        if !shorten(&mut request.conversation.messages, excess) {
            return Err(about_input(error));
        }
    }
    backend.chat(request).await.map_err(about_input)
}

/// The share of the prompt that is too much, in percent; nothing if it is not too long.
fn excess(error: &GenerationError) -> Option<usize> {
    /// Of the context, for an answer.
    const RESERVE: usize = 10;
    match error {
        GenerationError::Engine(
            EngineError::ContextExceeded {
                prompt_tokens, context, ..
            }
            | EngineError::PromptTooLong {
                least_tokens: prompt_tokens,
                context,
                ..
            },
        ) => {
            let fits = *context as usize * (100 - RESERVE) / prompt_tokens.max(&1);
            Some(100_usize.saturating_sub(fits).max(1))
        }
        _ => None,
    }
}

/// Takes out the oldest turns, so many percent of the text or more; whether there was one. Instructions at the beginning
/// stay, and the last turn, which begins with what the user says.
fn shorten(messages: &mut Vec<Message>, percent: usize) -> bool {
    let instructs = |message: &Message| matches!(message.role, Role::System | Role::Developer);
    let first = messages.iter().take_while(|message| instructs(message)).count();
    let length = |message: &Message| {
        let calls = message.tool_calls.iter().map(|call| call.arguments.len());
        message.content.len() + message.reasoning.as_ref().map_or(0, String::len) + calls.sum::<usize>()
    };
    let target = messages.iter().map(length).sum::<usize>() * percent / 100;
    let mut removed = 0;
    let mut end = first;
    for (index, message) in messages.iter().enumerate().skip(first) {
        if message.role == Role::User && index > first {
            end = index;
            if removed >= target {
                break;
            }
        }
        removed += length(message);
    }
    messages.drain(first..end);
    end > first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| &*message.content).collect()
    }

    #[test]
    fn the_oldest_turns_go_first() {
        let mut messages = vec![Message::new(Role::System, "s")];
        for turn in ["a", "b", "c", "d"] {
            messages.push(Message::new(Role::User, turn.repeat(50)));
            messages.push(Message::new(Role::Assistant, turn.to_uppercase().repeat(50)));
        }
        let mut half = messages.clone();
        assert!(shorten(&mut half, 40));
        assert_eq!(half.len(), 5);
        assert_eq!(texts(&half)[..2], ["s", &"c".repeat(50)]);
        assert!(shorten(&mut half, 1));
        assert_eq!(texts(&half)[1], "d".repeat(50));
        // The last turn stays.
        assert!(!shorten(&mut half, 1));
        assert!(shorten(&mut messages, 100));
        assert_eq!(texts(&messages)[1], "d".repeat(50));
    }

    #[test]
    fn what_is_too_much_is_a_share() {
        let long = |prompt_tokens| {
            let (model, context) = (String::new(), 1000);
            let exceeded = EngineError::ContextExceeded {
                model,
                prompt_tokens,
                context,
            };
            excess(&exceeded.into())
        };
        assert_eq!(long(1800), Some(50));
        assert_eq!(long(1000), Some(10));
        assert_eq!(excess(&GenerationError::Unfinished), None);
    }
}
