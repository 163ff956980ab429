//! Conversations as tokens, by the chat template of a model; with the tokens of the answers, which
//! are found by rendering the conversation up to each answer and with it.

use super::documents::Conversation;
use super::reading::marked_ids;
use crate::{Error, Result};
use halfstep_formats::template::{self, Message};
use halfstep_formats::{Model, Tokenizer};

/// Role of the one who answers.
const ASSISTANT: &str = "assistant";

/// Renders messages as the model reads them.
///
/// Errors: those of the template.
pub(crate) fn rendered(
    tokenizer: &Tokenizer,
    chat_template: &str,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<String> {
    let token = |id: Option<u32>| {
        let token = id.and_then(|id| tokenizer.vocabulary.tokens.get(id as usize));
        token.map_or("", String::as_str)
    };
    let (bos, eos) = (token(tokenizer.vocabulary.bos), token(tokenizer.vocabulary.eos));
    Ok(template::render(chat_template, messages, add_generation_prompt, bos, eos)?)
}

/// How conversations become tokens.
pub(super) struct Chat<'a> {
    /// Name of the data, for errors.
    pub data: &'a str,
    pub model: &'a Model,
    pub tokenizer: &'a Tokenizer,
    /// Begins each conversation.
    pub begin: Option<u32>,
    /// Whether special tokens are read as tokens.
    pub special: bool,
    pub answers_only: bool,
}

impl Chat<'_> {
    /// Ids of the conversations, one after the other, and whether each is one to predict, if only
    /// answers are.
    ///
    /// Errors: `Data`, naming the line: the model has no template, or it refuses the conversation,
    /// or does not tell where an answer begins and ends.
    pub(super) fn ids(&self, all: &[Conversation]) -> Result<(Vec<u32>, Option<Vec<bool>>)> {
        let (mut ids, mut targets) = (vec![], self.answers_only.then(Vec::new));
        for conversation in all {
            let whole = self.render(conversation, conversation.messages.len(), false)?;
            let own = self.encode(&whole)?;
            let begin = self.begin.filter(|begin| own.first() != Some(begin));
            if let Some(targets) = &mut targets {
                targets.extend(begin.map(|_| false));
                targets.extend(self.answers(conversation, &whole, &own)?);
            }
            ids.extend(begin);
            ids.extend(own);
        }
        Ok((ids, targets))
    }

    /// Which of `ids`, those of the rendered conversation `whole`, belong to answers.
    fn answers(&self, conversation: &Conversation, whole: &str, ids: &[u32]) -> Result<Vec<bool>> {
        let mut targets = vec![false; ids.len()];
        let messages = conversation.messages.iter().enumerate();
        for (i, _) in messages.filter(|(_, message)| message.role == ASSISTANT) {
            let before = self.render(conversation, i, true)?;
            let with = self.render(conversation, i + 1, false)?;
            if !(whole.starts_with(&with) && with.starts_with(&before)) {
                let reason = format!(
                    "the chat template renders messages[{i}] in another way once others follow, so \
                     its tokens are not known; leave out answersOnly"
                );
                return Err(self.wrong(conversation, reason));
            }
            // Where a token lies across the beginning of an answer it belongs to the answer, since
            // it does not occur before.
            let common = |prefix: &str| -> Result<usize> {
                let prefix = self.encode(prefix)?;
                Ok(ids.iter().zip(&prefix).take_while(|(a, b)| a == b).count())
            };
            let (start, end) = (common(&before)?, common(&with)?);
            targets[start.min(end)..end].fill(true);
        }
        Ok(targets)
    }

    /// The first `count` messages.
    fn render(
        &self,
        conversation: &Conversation,
        count: usize,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let template = self.model.chat_template.as_ref().ok_or_else(|| {
            let reason = format!(
                "a conversation, but {} has no chat template; use documents with a field text",
                self.model.name
            );
            self.wrong(conversation, reason)
        })?;
        let messages = &conversation.messages[..count];
        rendered(self.tokenizer, template, messages, add_generation_prompt)
            .map_err(|e| self.wrong(conversation, format!("{count} of its messages: {e}")))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if self.special {
            marked_ids(self.tokenizer, text)
        } else {
            Ok(self.tokenizer.encode(text, false)?)
        }
    }

    fn wrong(&self, conversation: &Conversation, reason: String) -> Error {
        Error::Data { data: self.data.into(), reason: format!("{}: {reason}", conversation.place) }
    }
}
