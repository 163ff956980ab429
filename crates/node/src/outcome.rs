//! How a call ended, as data: `{"ok": value}` or `{"error": {code, message, details}}`. `errors.ts` makes the JavaScript error.

use halfstep::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub fn value(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::Internal { reason: e.to_string() })
}

/// Runs `work`; a panic is a fault of ours and becomes `ERR_INTERNAL`.
pub fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Internal { reason: panic_text(&*panic) }))
}

pub fn of(work: impl FnOnce() -> Result<Value>) -> String {
    to_json(&catch(work))
}

pub fn to_json(result: &Result<Value>) -> String {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(e) => json!({ "error": { "code": e.code(), "message": e.to_string(), "details": e.details() } }),
    }
    .to_string()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_become_data() {
        let error: Value = serde_json::from_str(&of(|| Err(Error::config("weights", "no")))).unwrap();
        assert_eq!(error["error"]["code"], "ERR_CONFIG");
        assert_eq!(error["error"]["details"]["field"], "weights");
        let panic: Value = serde_json::from_str(&of(|| panic!("index {}", 7))).unwrap();
        assert_eq!(panic["error"]["code"], "ERR_INTERNAL");
        assert_eq!(panic["error"]["details"]["reason"], "index 7");
        assert_eq!(of(|| Ok(json!(3))), r#"{"ok":3}"#);
    }
}
