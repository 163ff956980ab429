//! Perplexity, KL to a reference model, top-1 agreement. Sums are f64, in the order of the tokens.
use crate::clock::Clock;
use crate::sample::argmax;
use crate::{Cache, Error, Network, Result};
use halfstep_kernels::Pool;
use halfstep_kernels::math::exp_f64;
use halfstep_kernels::ops::loss::{cross_entropy, kl_divergence};
use serde::{Deserialize, Serialize};

/// One object, as `halfstep eval --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// exp(mean_nll).
    pub perplexity: f64,
    /// Mean negative log-likelihood in nats.
    pub mean_nll: f64,
    /// Number of predictions.
    pub predictions: usize,
    /// Mean KL(against || model) in nats over the same predictions; None without `against`.
    pub kl: Option<f64>,
    /// Share of the same positions where both give the same token the highest probability.
    pub top1_agreement: Option<f64>,
    /// Predictions per second of the model's own forward, the reference and the scoring left out; 0
    /// if there is no clock.
    pub tokens_per_second: f64,
}

/// Rows whose logits are in memory at a time: never a sequence times the vocabulary.
const LOGIT_ROWS: usize = 64;
/// Rows that one task scores.
const TASK_ROWS: usize = 4;

/// Cuts `tokens` into sequences of `sequence_length` (a last sequence of fewer than 2 tokens is
/// dropped), runs each alone from position 0, and scores ids 1.. of every sequence.
/// `progress(done_tokens, total_tokens)` returns false to cancel. Errors: a sequence of fewer than
/// 2 tokens or of more than the models have positions; fewer tokens than one sequence; ids outside
/// the vocabulary; vocabularies of the two models differ; logits that are not finite.
pub fn evaluate(
    network: &Network,
    against: Option<&Network>,
    tokens: &[u32],
    sequence_length: usize,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Evaluation> {
    let mut scoring = Scoring::new(&[network], against, tokens.to_vec(), sequence_length)?;
    loop {
        if !progress(scoring.done, scoring.total) {
            return Err(Error::Cancelled);
        }
        if !scoring.step(&[network], against)? {
            return Ok(scoring.evaluations().remove(0));
        }
    }
}

/// An [`evaluate`] in progress, of one network or of several with the same reference, which then
/// runs once: the state between two sequences, for callers that do other work in between. Every
/// call must pass the same networks.
pub struct Scoring {
    tokens: Vec<u32>,
    sequence_length: usize,
    /// Number of tokens of the sequences that are scored.
    pub done: usize,
    /// Number of tokens of all sequences.
    pub total: usize,
    /// Whether each token is one to predict; None: all are.
    targets: Option<Vec<bool>>,
    compared: bool,
    sums: Vec<Sums>,
}

impl Scoring {
    /// Checks networks and tokens; nothing is computed yet. Errors: those of [`evaluate`].
    pub fn new(
        networks: &[&Network],
        against: Option<&Network>,
        tokens: Vec<u32>,
        sequence_length: usize,
    ) -> Result<Self> {
        networks
            .iter()
            .try_for_each(|network| check(network, against, &tokens, sequence_length))?;
        let total = tokens.chunks(sequence_length).map(<[u32]>::len).filter(|&n| n >= 2).sum();
        let sums = networks.iter().map(|_| Sums::default()).collect();
        let (done, targets, compared) = (0, None, against.is_some());
        Ok(Self { tokens, sequence_length, done, total, targets, compared, sums })
    }

    /// Scores some of the tokens only; the others are read and not predicted. `targets` says of
    /// each token whether it is scored.
    ///
    /// Errors: another number of them, or none to score.
    pub fn of_targets(mut self, targets: Vec<bool>) -> Result<Self> {
        if targets.len() != self.tokens.len() {
            let (got, tokens) = (targets.len(), self.tokens.len());
            return Err(Error::argument("targets", format!("must be {tokens}, got {got}")));
        }
        let of_sequence = |sequence: &[bool]| sequence[1..].contains(&true);
        if !targets[..self.total].chunks(self.sequence_length).any(of_sequence) {
            let reason = "must have a token to predict among those that are measured";
            return Err(Error::argument("data", reason));
        }
        self.targets = Some(targets);
        Ok(self)
    }

    /// Scores the next sequence; false when there is none.
    pub fn step(&mut self, networks: &[&Network], against: Option<&Network>) -> Result<bool> {
        if self.done == self.total {
            return Ok(false);
        }
        let range = self.done..self.total.min(self.done + self.sequence_length);
        let sequence = &self.tokens[range.clone()];
        let targets = self.targets.as_ref().map(|targets| &targets[range]);
        score_sequence(networks, against, sequence, targets, self.done, &mut self.sums)?;
        self.done += sequence.len();
        Ok(true)
    }

    /// The means over the sequences scored so far, of every network.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        self.sums.iter().map(|sums| sums.evaluation(self.compared)).collect()
    }
}

fn check(
    network: &Network,
    against: Option<&Network>,
    tokens: &[u32],
    sequence_length: usize,
) -> Result<()> {
    let positions = [Some(network), against]
        .into_iter()
        .flatten()
        .map(|n| n.architecture().max_positions)
        .min()
        .unwrap_or(0);
    if sequence_length < 2 || sequence_length > positions {
        return Err(Error::argument(
            "sequenceLength",
            format!(
                "must be from 2 to the {positions} positions of the model, got {sequence_length}"
            ),
        ));
    }
    if tokens.len() < sequence_length {
        let got = tokens.len();
        let reason = format!(
            "must have at least one sequence of {sequence_length} tokens, got {got}; use a longer \
             text or a shorter sequenceLength"
        );
        return Err(Error::argument("data", reason));
    }
    network.check_ids("data", tokens)?;
    if let Some(against) = against
        && against.architecture().vocab_size != network.architecture().vocab_size
    {
        let (theirs, ours) = (against.architecture().vocab_size, network.architecture().vocab_size);
        return Err(Error::argument(
            "against",
            format!("its vocabulary has {theirs} tokens, the model's {ours}"),
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Sums {
    nll: f64,
    kl: f64,
    agree: usize,
    predictions: usize,
    seconds: f64,
}

impl Sums {
    /// Scores of the tokens from position `first` of the text on; of those that count, where not
    /// all do.
    fn add(&mut self, scores: &[RowScore], count: Option<&[bool]>, first: usize) -> Result<()> {
        for (m, score) in scores.iter().enumerate() {
            if count.is_some_and(|count| !count[m]) {
                continue;
            }
            if !(score.nll.is_finite() && score.kl.is_finite()) {
                return Err(Error::NonFinite { what: "the loss".into(), position: first + m });
            }
            self.nll += score.nll;
            self.kl += score.kl;
            self.agree += score.agree as usize;
            self.predictions += 1;
        }
        Ok(())
    }

    fn evaluation(&self, compared: bool) -> Evaluation {
        let count = self.predictions as f64;
        let mean_nll = self.nll / count;
        Evaluation {
            perplexity: exp_f64(mean_nll),
            mean_nll,
            predictions: self.predictions,
            kl: compared.then_some(self.kl / count),
            top1_agreement: compared.then_some(self.agree as f64 / count),
            tokens_per_second: if self.seconds > 0.0 { count / self.seconds } else { 0.0 },
        }
    }
}

/// Scores one sequence, or those of its tokens that `counted` names; `first` is the position of its
/// first token in the text.
fn score_sequence(
    networks: &[&Network],
    against: Option<&Network>,
    sequence: &[u32],
    counted: Option<&[bool]>,
    first: usize,
    sums: &mut [Sums],
) -> Result<()> {
    // The last token predicts nothing.
    let (inputs, targets) = (&sequence[..sequence.len() - 1], &sequence[1..]);
    let cache = |network| Cache::for_length(network, sequence.len());
    let reference = against.map(|a| a.features(inputs, &mut cache(a))).transpose()?;
    let mut features = vec![];
    for (network, sums) in networks.iter().zip(&mut *sums) {
        let start = Clock::start();
        features.push(network.features(inputs, &mut cache(network))?);
        sums.seconds += start.seconds();
    }
    let (mut logits, mut reference_logits) = (vec![], vec![]);
    for (i, targets) in targets.chunks(LOGIT_ROWS).enumerate() {
        let (row, mut scores) = (i * LOGIT_ROWS, vec![RowScore::default(); targets.len()]);
        let counted = counted.map(|counted| &counted[row + 1..row + 1 + targets.len()]);
        if counted.is_some_and(|counted| !counted.contains(&true)) {
            continue;
        }
        if let (Some(against), Some(features)) = (against, &reference) {
            logits_of(against, features, row, targets.len(), &mut reference_logits);
        }
        for ((network, features), sums) in networks.iter().zip(&features).zip(&mut *sums) {
            let start = Clock::start();
            logits_of(network, features, row, targets.len(), &mut logits);
            sums.seconds += start.seconds();
            score_rows(network, &logits, &reference_logits, targets, &mut scores);
            sums.add(&scores, counted, first + row + 1)?;
        }
    }
    Ok(())
}

/// Logits of `rows` rows from `row` on.
fn logits_of(network: &Network, features: &[f32], row: usize, rows: usize, logits: &mut Vec<f32>) {
    let (d, vocab) = (network.architecture().hidden_size, network.architecture().vocab_size);
    logits.resize(rows * vocab, 0.0);
    network.head(&features[row * d..(row + rows) * d], logits);
}

/// `logits` and `reference` `[rows, V]`; `reference` is empty if there is none.
fn score_rows(
    network: &Network,
    logits: &[f32],
    reference: &[f32],
    targets: &[u32],
    scores: &mut [RowScore],
) {
    let vocab = network.architecture().vocab_size;
    network.pool().chunks_mut(scores, TASK_ROWS, |task, scores| {
        let mut wide = Wide::default();
        for (i, score) in scores.iter_mut().enumerate() {
            let m = task * TASK_ROWS + i;
            let row = m * vocab..(m + 1) * vocab;
            *score = wide.score(&logits[row.clone()], targets[m], reference.get(row));
        }
    });
}

#[derive(Clone, Copy, Debug, Default)]
struct RowScore {
    nll: f64,
    kl: f64,
    agree: bool,
}

/// A row of logits, and one of the reference, in f64: what the losses are computed in, so that a KL
/// far below f32's rounding is still a number to trust.
#[derive(Default)]
struct Wide {
    logits: Vec<f64>,
    reference: Vec<f64>,
}

impl Wide {
    /// NaN where the logits are not numbers.
    fn score(&mut self, logits: &[f32], target: u32, reference: Option<&[f32]>) -> RowScore {
        let (pool, vocab, mut value) = (Pool::serial(), logits.len(), [0.0]);
        let Some(first) = argmax(logits) else {
            return RowScore { nll: f64::NAN, ..RowScore::default() };
        };
        widen(logits, &mut self.logits);
        let nll =
            cross_entropy(&pool, &self.logits, &[target as i64], vocab, 1.0, &mut value, None);
        let Some(reference) = reference else {
            return RowScore { nll, ..RowScore::default() };
        };
        let Some(theirs) = argmax(reference) else {
            return RowScore { nll, kl: f64::NAN, agree: false };
        };
        widen(reference, &mut self.reference);
        let kl = kl_divergence(
            &pool,
            &self.reference,
            &self.logits,
            vocab,
            1.0,
            None,
            1.0,
            &mut value,
            None,
        );
        RowScore { nll, kl, agree: theirs == first }
    }
}

fn widen(row: &[f32], out: &mut Vec<f64>) {
    out.clear();
    out.extend(row.iter().map(|&v| v as f64));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, two softmaxes and a sum.
    fn naive(p: &[f32], q: &[f32]) -> f64 {
        let softmax = |x: &[f32]| {
            let e: Vec<f64> = x.iter().map(|&v| (v as f64).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(|v| v / sum).collect::<Vec<_>>()
        };
        softmax(p)
            .iter()
            .zip(softmax(q))
            .filter(|(p, _)| **p > 0.0)
            .map(|(p, q)| p * (p / q).ln())
            .sum()
    }

    #[test]
    fn a_row_is_scored_by_the_definition() {
        let (model, reference) =
            ([0.3f32, -2.0, 1.5, 4.0, 0.0], [0.1f32, -1.0, f32::NEG_INFINITY, 3.0, 3.5]);
        let score = Wide::default().score(&model, 2, Some(&reference));
        let sum: f64 = model.iter().map(|&v| (v as f64).exp()).sum();
        assert!((score.nll - (sum.ln() - 1.5)).abs() < 1e-12);
        assert!(
            (score.kl - naive(&reference, &model)).abs() < 1e-12,
            "{} {}",
            score.kl,
            naive(&reference, &model)
        );
        assert!(!score.agree);
        let same = Wide::default().score(&model, 2, Some(&model));
        assert!(same.kl.abs() < 1e-14 && same.agree);
    }

    #[test]
    fn logits_that_are_no_numbers_give_no_score() {
        assert!(Wide::default().score(&[0.0, f32::NAN], 0, None).nll.is_nan());
        assert!(Wide::default().score(&[0.0, 1.0], 0, Some(&[f32::NAN, 0.0])).kl.is_nan());
        assert_eq!(Wide::default().score(&[0.0, f32::NEG_INFINITY], 1, None).nll, f64::INFINITY);
    }
}
