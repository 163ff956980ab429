//! Equality, order and membership, as Python has them.

use super::ast::Comparison;
use super::budget::Budget;
use super::number::Number;
use super::value::{Shape, Value};
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
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        budget.read(a.len().min(b.len()))?;
        return Ok(a == b);
    }
    Ok(match (left, right) {
        (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
        (Value::List(a), Value::List(b)) => {
            if a.items.len() != b.items.len() || a.shape != b.shape {
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

pub fn order(left: &Value, right: &Value, budget: &mut Budget) -> Outcome<Option<Ordering>> {
    budget.work(1)?;
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return Ok(a.order(b));
    }
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        budget.read(a.len().min(b.len()))?;
        return Ok(Some(a.cmp(b)));
    }
    match (left, right) {
        (Value::List(a), Value::List(b))
            if a.shape == b.shape && !matches!(a.shape, Shape::View(_)) =>
        {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b, budget)? {
                    return order(a, b, budget);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
        }
        _ => Err(wrong(format!("a {} and a {} have no order", left.kind(), right.kind()))),
    }
}

pub fn contains(container: &Value, item: &Value, budget: &mut Budget) -> Outcome<bool> {
    if let (Some(text), Some(part)) = (container.as_str(), item.as_str()) {
        budget.read(text.len() + part.len())?;
        return Ok(text.contains(part));
    }
    match (container, item) {
        (Value::Generator(generator), item) => {
            for other in generator.take()? {
                if equal(&other, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
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

/// The places of `keys` in ascending order (descending if `reverse`), equal ones as they stand. A
/// merge sort of our own: that of the standard library must be told an order that always holds, and
/// that of values may fail.
pub fn sorted(keys: &[Value], reverse: bool, budget: &mut Budget) -> Outcome<Vec<usize>> {
    budget.make(2 * size_of_val(keys))?;
    let mut places: Vec<usize> = (0..keys.len()).collect();
    let mut width = 1;
    while width < places.len() {
        let mut merged = Vec::with_capacity(places.len());
        for run in places.chunks(2 * width) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let (Some(&l), Some(&r)) = (left.first(), right.first()) {
                let order = order(&keys[r], &keys[l], budget)?;
                let wanted = if reverse { Ordering::Greater } else { Ordering::Less };
                let taken = if order == Some(wanted) { &mut right } else { &mut left };
                merged.push(taken[0]);
                *taken = &taken[1..];
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        places = merged;
        width *= 2;
    }
    Ok(places)
}

/// The value by which it is sorted and told apart from others: texts in small letters, unless case
/// counts.
pub fn key(value: Value, case_sensitive: bool, budget: &mut Budget) -> Outcome<Value> {
    match value {
        Value::Str(text) | Value::Markup(text) if !case_sensitive => {
            budget.make(text.len())?;
            Ok(Value::str(&text.to_lowercase()))
        }
        other => Ok(other),
    }
}
