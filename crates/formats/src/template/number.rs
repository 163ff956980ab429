//! Arithmetic, as Python has it, on 64-bit integers: what does not fit is an error.

use super::ast::Operator;
use super::value::Value;
use super::{Outcome, wrong};
use std::cmp::Ordering;

#[derive(Clone, Copy)]
pub enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    /// A boolean counts as 0 or 1.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Int(i64::from(*value))),
            Value::Int(value) => Some(Self::Int(*value)),
            Value::Float(value) => Some(Self::Float(*value)),
            _ => None,
        }
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    pub fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

pub fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Outcome<Value> {
    let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) else {
        return Err(wrong(format!(
            "{operator:?} does not go with a {} and a {}",
            left.kind(),
            right.kind()
        )));
    };
    let fits = |value: Option<i64>| {
        value
            .map(Value::Int)
            .ok_or_else(|| wrong(format!("the result of {operator:?} is too large")))
    };
    let divides = b.as_f64() != 0.0;
    match (operator, a, b) {
        (Operator::Divide | Operator::FloorDivide | Operator::Remainder, ..) if !divides => {
            Err(wrong("division by zero"))
        }
        (Operator::Divide, a, b) => Ok(Value::Float(a.as_f64() / b.as_f64())),
        (Operator::Add, Number::Int(a), Number::Int(b)) => fits(a.checked_add(b)),
        (Operator::Subtract, Number::Int(a), Number::Int(b)) => fits(a.checked_sub(b)),
        (Operator::Multiply, Number::Int(a), Number::Int(b)) => fits(a.checked_mul(b)),
        (Operator::FloorDivide, Number::Int(a), Number::Int(b)) => fits(floor_divide(a, b)),
        (Operator::Remainder, Number::Int(a), Number::Int(b)) => {
            fits(floor_divide(a, b).map(|q| a.wrapping_sub(q.wrapping_mul(b))))
        }
        (Operator::Power, Number::Int(a), Number::Int(b)) if b >= 0 => {
            fits(u32::try_from(b).ok().and_then(|b| a.checked_pow(b)))
        }
        (operator, a, b) => {
            let (a, b) = (a.as_f64(), b.as_f64());
            Ok(Value::Float(match operator {
                Operator::Add => a + b,
                Operator::Subtract => a - b,
                Operator::Multiply => a * b,
                Operator::FloorDivide => (a / b).floor(),
                Operator::Remainder => a - b * (a / b).floor(),
                Operator::Power => a.powf(b),
                Operator::Divide | Operator::Concat => return Err(wrong("not a number")),
            }))
        }
    }
}

fn floor_divide(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}

/// A number from 0 to `len` - 1 for an index that may count from the end.
pub fn index(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(len).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|&i| i < len)
}

/// First and last index of Python's `[start:stop]`.
pub fn span(start: Option<i64>, stop: Option<i64>, len: usize) -> (usize, usize) {
    let len = len as i64;
    let clamp =
        |bound: i64| (if bound < 0 { bound.saturating_add(len) } else { bound }).clamp(0, len);
    let (start, stop) = (start.map_or(0, clamp), stop.map_or(len, clamp));
    (start as usize, stop.max(start) as usize)
}

/// The indices of Python's `[start:stop:step]`, which must not be more than `len`.
pub fn slice(
    start: Option<i64>,
    stop: Option<i64>,
    step: Option<i64>,
    len: usize,
) -> Outcome<Vec<usize>> {
    let step = step.unwrap_or(1);
    let len = len as i64;
    if step == 0 {
        return Err(wrong("a slice with step 0"));
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp =
        |bound: i64| (if bound < 0 { bound.saturating_add(len) } else { bound }).clamp(low, high);
    let (start, stop) = match step > 0 {
        true => (start.map_or(0, clamp), stop.map_or(len, clamp)),
        false => (start.map_or(len - 1, clamp), stop.map_or(-1, clamp)),
    };
    let mut indices = Vec::new();
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        indices.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(indices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_python_has_them() {
        let cases = [
            ((None, None, None), vec![0, 1, 2, 3, 4]),
            ((Some(1), Some(-1), None), vec![1, 2, 3]),
            ((None, None, Some(-1)), vec![4, 3, 2, 1, 0]),
            ((Some(-2), None, None), vec![3, 4]),
            ((Some(9), None, Some(-2)), vec![4, 2, 0]),
            ((Some(3), Some(0), Some(-1)), vec![3, 2, 1]),
            ((Some(i64::MIN), Some(i64::MAX), Some(i64::MAX)), vec![0]),
            ((None, None, Some(i64::MIN)), vec![4]),
            ((Some(4), Some(1), None), vec![]),
        ];
        for ((start, stop, step), expected) in cases {
            assert_eq!(
                slice(start, stop, step, 5).expect("a slice"),
                expected,
                "{start:?}:{stop:?}:{step:?}"
            );
        }
        assert_eq!(slice(None, None, Some(-1), 0).expect("a slice"), Vec::<usize>::new());
        assert!(slice(None, None, Some(0), 5).is_err());
        for ((start, stop, step), expected) in [
            ((Some(1), Some(-1), None), (1, 4)),
            ((None, Some(9), None), (0, 5)),
            ((Some(4), Some(1), Some(1)), (4, 4)),
        ] {
            assert_eq!(span(start, stop, 5), expected);
            assert_eq!(
                slice(start, stop, step, 5).expect("a slice"),
                (expected.0..expected.1).collect::<Vec<_>>()
            );
        }
        assert_eq!(
            (index(-1, 3), index(3, 3), index(-4, 3), index(i64::MIN, 3)),
            (Some(2), None, None, None)
        );
    }

    #[test]
    fn integers_divide_downwards_and_never_wrap() {
        let run = |operator, a, b| match arithmetic(operator, &Value::Int(a), &Value::Int(b)) {
            Ok(Value::Int(value)) => Some(value),
            _ => None,
        };
        assert_eq!(
            (
                run(Operator::FloorDivide, -7, 2),
                run(Operator::Remainder, -7, 2),
                run(Operator::Remainder, 7, -2)
            ),
            (Some(-4), Some(1), Some(-1))
        );
        for (operator, a, b) in [
            (Operator::Power, 10, 30),
            (Operator::Multiply, i64::MAX, 2),
            (Operator::FloorDivide, i64::MIN, -1),
            (Operator::Remainder, 1, 0),
        ] {
            assert_eq!(run(operator, a, b), None, "{operator:?}");
        }
        assert_eq!(run(Operator::Remainder, i64::MIN, -1), None);
    }
}
