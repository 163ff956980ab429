//! How a call ended, as data: `{"ok": value}` or `{"error": {code, message, details}}`. `errors.ts`
//! makes the JavaScript error.

use halfstep::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A value as JSON text, its fields in the order they are declared in.
pub fn value(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Internal { reason: e.to_string() })
}

/// Runs `work`; a panic is a fault of ours and becomes `ERR_INTERNAL`.
pub fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Error::Internal { reason: panic_text(&*panic) }))
}

/// The outcome of a call that is over at once; `work` gives JSON.
pub fn of(work: impl FnOnce() -> Result<String>) -> String {
    to_json(&catch(work))
}

pub fn to_json(result: &Result<String>) -> String {
    match result {
        Ok(json) => format!(r#"{{"ok":{json}}}"#),
        Err(e) => {
            let (code, message, details) = (e.code(), e.to_string(), e.details());
            json!({ "error": { "code": code, "message": message, "details": details } }).to_string()
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn errors_and_panics_become_data() {
        let error: Value =
            serde_json::from_str(&of(|| Err(Error::config("weights", "no")))).unwrap();
        assert_eq!(error["error"]["code"], "ERR_CONFIG");
        assert_eq!(error["error"]["details"]["field"], "weights");
        let panic: Value = serde_json::from_str(&of(|| panic!("index {}", 7))).unwrap();
        assert_eq!(panic["error"]["code"], "ERR_INTERNAL");
        assert_eq!(panic["error"]["details"]["reason"], "index 7");
        assert_eq!(of(|| value(&3)), r#"{"ok":3}"#);
    }
}
