//! Interleaved samples: A B A B, so that a drift of the machine meets all contenders alike.

use std::time::{Duration, Instant};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Per contender, before the first sample.
    pub warm_up: Duration,
    /// At least so many samples of each, if they do not take longer than `most`; `FEWEST` at any
    /// cost.
    pub samples: usize,
    /// At least so long per contender, samples together.
    pub least: Duration,
    /// Per contender, samples together, unless that is too few of them.
    pub most: Duration,
    /// Short calls are repeated until a sample takes this long.
    pub sample: Duration,
}

impl Budget {
    pub(crate) const DEFAULT: Self = Self {
        warm_up: Duration::from_millis(300),
        samples: 15,
        least: Duration::from_millis(300),
        most: Duration::from_millis(1500),
        sample: Duration::from_millis(2),
    };
}

/// Fewest samples of a contender: three still have a median.
const FEWEST: usize = 3;

/// Seconds of one call, over the samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub median: f64,
    pub least: f64,
    /// Third less first quartile.
    pub interquartile: f64,
    pub samples: usize,
}

impl Times {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).round() as usize];
        Self {
            median: at(0.5),
            least: seconds[0],
            interquartile: at(0.75) - at(0.25),
            samples: seconds.len(),
        }
    }
}

/// Times every contender, one sample of each in turn.
pub(crate) fn interleaved(contenders: &mut [&mut dyn FnMut()], budget: Budget) -> Vec<Times> {
    let calls: Vec<usize> = contenders.iter_mut().map(|run| warm_up(&mut **run, budget)).collect();
    let mut seconds = vec![vec![]; contenders.len()];
    let (start, all) = (Instant::now(), contenders.len() as u32);
    let done = |samples: usize| {
        let time = start.elapsed();
        samples >= FEWEST
            && time >= budget.least * all
            && (samples >= budget.samples || time >= budget.most * all)
    };
    while !done(seconds[0].len()) {
        for ((run, &calls), seconds) in contenders.iter_mut().zip(&calls).zip(&mut seconds) {
            let start = Instant::now();
            (0..calls).for_each(|_| run());
            seconds.push(start.elapsed().as_secs_f64() / calls as f64);
        }
    }
    seconds.into_iter().map(Times::of).collect()
}

/// Calls that fill one sample.
fn warm_up(run: &mut dyn FnMut(), budget: Budget) -> usize {
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < budget.warm_up || calls == 0 {
        run();
        calls += 1;
    }
    let one = start.elapsed().as_secs_f64() / calls as f64;
    ((budget.sample.as_secs_f64() / one).ceil() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_a_known_row() {
        let times = Times::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(
            (times.median, times.least, times.interquartile, times.samples),
            (3.0, 1.0, 2.0, 5)
        );
    }

    #[test]
    fn contenders_take_turns() {
        let order = std::cell::RefCell::new(vec![]);
        let (mut a, mut b) = (|| order.borrow_mut().push('a'), || order.borrow_mut().push('b'));
        let budget = Budget {
            warm_up: Duration::ZERO,
            samples: 3,
            least: Duration::ZERO,
            most: Duration::ZERO,
            sample: Duration::ZERO,
        };
        let times = interleaved(&mut [&mut a, &mut b], budget);
        assert_eq!(times.iter().map(|t| t.samples).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(order.borrow().iter().collect::<String>(), "abababab");
    }
}
