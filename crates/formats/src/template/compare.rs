//! Equality, order and membership, as Python has them.

use super::ast::Comparison;
use super::budget::Budget;
use super::number::Number;
use super::value::Value;
use super::{Outcome, wrong};
use std::cmp::Ordering;

pub fn compare(
    comparison: Comparison,
    left: &Value,
    right: &Value,
    budget: &mut Budget,
) -> Outcome<bool> {
    Ok(match comparison {
        Comparison::Equal => equal(left, right, budget)?,
        Comparison::NotEqual => !equal(left, right, budget)?,
        Comparison::Less => order(left, right, budget)? == Some(Ordering::Less),
        Comparison::LessEqual => {
            matches!(order(left, right, budget)?, Some(Ordering::Less | Ordering::Equal))
        }
        Comparison::Greater => order(left, right, budget)? == Some(Ordering::Greater),
        Comparison::GreaterEqual => {
            matches!(order(left, right, budget)?, Some(Ordering::Greater | Ordering::Equal))
        }
        Comparison::In => contains(right, left, budget)?,
        Comparison::NotIn => !contains(right, left, budget)?,
    })
}

/// Every element visited is paid for: two lists that share their parts may be much larger than they
/// are long.
pub fn equal(left: &Value, right: &Value, budget: &mut Budget) -> Outcome<bool> {
    budget.work(1)?;
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return Ok(a.order(b) == Some(Ordering::Equal));
    }
    Ok(match (left, right) {
        (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            budget.read(a.len().min(b.len()))?;
            a == b
        }
        (Value::List(a), Value::List(b)) => {
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries.len() != b.entries.len() {
                return Ok(false);
            }
            for (key, value) in &a.entries {
                match b.get(key, budget)? {
                    Some(other) if equal(value, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => false,
    })
}

fn order(left: &Value, right: &Value, budget: &mut Budget) -> Outcome<Option<Ordering>> {
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return Ok(a.order(b));
    }
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            budget.read(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        _ => Err(wrong(format!("a {} and a {} have no order", left.kind(), right.kind()))),
    }
}

pub fn contains(container: &Value, item: &Value, budget: &mut Budget) -> Outcome<bool> {
    match (container, item) {
        (Value::Str(text), Value::Str(part)) => {
            budget.read(text.len() + part.len())?;
            Ok(text.contains(&**part))
        }
        (Value::List(list), item) => {
            for other in &list.items {
                if equal(other, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Dict(dict), key) => Ok(dict.get(key, budget)?.is_some()),
        (Value::Undefined, _) => Ok(false),
        _ => Err(wrong(format!("a {} cannot be in a {}", item.kind(), container.kind()))),
    }
}

/// What values are sorted by. All keys of one sorting are of one variant, so the order is total.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SortKey {
    Int(i64),
    Float(TotalFloat),
    Text(String),
}

#[derive(Clone, Copy)]
pub struct TotalFloat(f64);

impl PartialEq for TotalFloat {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for TotalFloat {}
impl PartialOrd for TotalFloat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for TotalFloat {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Keys for sorting `values`: all numbers or all strings, else an error. Pays for the sorting too.
pub fn sort_keys(
    values: &[Value],
    case_sensitive: bool,
    budget: &mut Budget,
) -> Outcome<Vec<SortKey>> {
    let steps = values.len().checked_ilog2().unwrap_or(0) as usize + 1;
    budget.make(values.len() * size_of::<SortKey>())?;
    budget.work(values.len() * steps)?;
    let any_float = values.iter().any(|v| matches!(v, Value::Float(_)));
    let mut keys = Vec::with_capacity(values.len());
    for value in values {
        keys.push(match value {
            Value::Str(text) => {
                // Comparing reads the texts again, at worst once for each step.
                budget.make(text.len())?;
                budget.read(text.len() * steps)?;
                SortKey::Text(if case_sensitive { text.to_string() } else { text.to_lowercase() })
            }
            other => match Number::of(other) {
                Some(Number::Int(number)) if !any_float => SortKey::Int(number),
                Some(number) => SortKey::Float(TotalFloat(number.as_f64())),
                None => return Err(wrong(format!("a {} cannot be sorted", other.kind()))),
            },
        });
    }
    if keys.iter().any(|key| std::mem::discriminant(key) != std::mem::discriminant(&keys[0])) {
        return Err(wrong("numbers and strings have no order among each other"));
    }
    Ok(keys)
}
