//! A mixture of experts. Rows are gathered for each expert, go through its linears, and are added to
//! their places in the order of the experts.

use super::{Block, Name};
use crate::Result;
use crate::autograd::ops::Sink;
use crate::autograd::ops::activation::Plain;
use crate::autograd::ops::bias::AddBias;
use crate::autograd::ops::routing::{Weigh, chosen};
use crate::autograd::ops::rows::{Combine, GatherRows, ScaleRows, Sent, as_table};
use crate::autograd::ops::scale::AddScaled;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_formats::architecture::{ActivationSite, Experts, Parameter, Role, Score};
use halfstep_kernels::ops::activation::Activation;
use halfstep_kernels::ops::routing::{Routing, Score as Scores};
use std::sync::Arc;

impl<D: Device> Block<'_, D> {
    /// `sum w_e expert_e(x)` over the chosen experts e of each row of x, plus the shared one.
    pub(super) fn experts(
        &mut self,
        tape: &mut Tape<D>,
        experts: &Experts,
        x: Tensor<D>,
    ) -> Result<Tensor<D>> {
        self.show(ActivationSite::FfnIn, &x)?;
        let outputs = self.float_linear(tape, Parameter::Router, &x)?; // [M, E]
        let outputs = match self.parameter(Parameter::RouterBias) {
            Some((bias, sink)) => tape.apply([&outputs], AddBias { bias, sink })?,
            None => outputs,
        };
        let routing = kernel(experts);
        let choice_bias = self.parameter(Parameter::ChoiceBias);
        if let (true, Some((_, Some(sink)))) = (tape.is_on(), &choice_bias) {
            sink.add_zeros(&self.context.device)?;
        }
        let bias = choice_bias.as_ref().map(|(bias, _)| &**bias);
        let chosen = chosen(&self.context.device, &routing, &outputs, bias)?;
        let weights = tape.apply([&outputs], Weigh { routing, chosen: chosen.clone() })?;
        let (mut arguments, mut sent) = (vec![weights], vec![]);
        let table = as_table(&self.context.device, &x)?;
        let places = places(&chosen, experts.count);
        for (e, places) in (0..).zip(places) {
            let rows: Vec<u32> = places.iter().map(|at| at / routing.used as u32).collect();
            let y = self.expert(tape, experts, e, (&x, &table), &rows)?;
            if let Some(y) = y {
                arguments.push(y);
                sent.push(Sent { rows: rows.into(), weights: places.into() });
            }
        }
        let (rows, width) = (x.rows(), self.context.architecture.hidden_size);
        let y = tape.apply_many(&arguments, Combine { rows, width, sent })?;
        let Some(shared) = &experts.shared else { return Ok(y) };
        let own = self.hidden(tape, shared, x.clone(), Name::SHARED)?;
        let down = Name::SharedDown;
        let [mut own] = self.linears(tape, down.input(), own, [down])?;
        if experts.shared_gate {
            let gate = self.float_linear(tape, Parameter::SharedGate, &x)?; // [M, 1]
            let gate = tape.apply([&gate], Plain(Activation::Sigmoid))?;
            own = tape.apply([&own, &gate], ScaleRows)?;
        }
        tape.apply([&y, &own], AddScaled(1.0))
    }

    /// What an expert gives for its rows of x, which are in the table too; None if it gets none.
    fn expert(
        &mut self,
        tape: &mut Tape<D>,
        experts: &Experts,
        expert: u16,
        (x, table): (&Tensor<D>, &D::Weight),
        sent: &[u32],
    ) -> Result<Option<Tensor<D>>> {
        let (names, device) = (Name::expert(expert), &self.context.device);
        let more = match (&self.tap, self.top_up) {
            (Some(_), Some(top_up)) => top_up.rows_of(expert, x.rows(), sent),
            _ => vec![],
        };
        let rows: Arc<[u32]> = sent.iter().copied().chain(more).collect();
        if rows.is_empty() {
            if tape.is_on() {
                self.no_gradients(&names)?;
            }
            return Ok(None);
        }
        let all = rows.len();
        let input = Tensor::new(device.embedding(table, &rows)?, &[all, x.cols()])?;
        tape.record([x], GatherRows(rows), &input);
        let hidden = self.hidden(tape, &experts.expert, input, names)?;
        let down = names[2];
        let [y] = self.linears(tape, down.input(), hidden, [down])?;
        if all == sent.len() {
            return Ok(Some(y));
        }
        // Nobody differentiates what is seen.
        let own = device.slice(y.buffer()?, 0..sent.len() * y.cols())?;
        let own = Tensor::new(own, &[sent.len(), y.cols()])?;
        Ok((!sent.is_empty()).then_some(own))
    }

    /// Gradients of 0 for everything of linears that get no row.
    fn no_gradients(&self, names: &[Name]) -> Result<()> {
        let (device, sinks) = (&self.context.device, self.sinks);
        let zero = |sink: &Sink<D>| sink.add_zeros(device);
        for name in names {
            sinks.linears.get(name).map_or(Ok(()), zero)?;
            sinks.vectors.get(&Role::Bias(*name)).map_or(Ok(()), zero)?;
            if let Some(factors) = sinks.low_rank.get(name) {
                zero(&factors.a)?;
                zero(&factors.b)?;
            }
            if let Some(input) = self.weights.inputs.get(name) {
                input.no_gradients(device)?;
            }
        }
        let mut sites: Vec<_> = names.iter().map(|name| name.input()).collect();
        sites.dedup();
        for site in sites {
            let step = sinks.steps.get(&site).and_then(|step| step.sink.as_ref());
            step.map_or(Ok(()), zero)?;
        }
        Ok(())
    }
}

/// Where each of `count` experts is among the chosen ones, in order.
pub(crate) fn places(chosen: &[u32], count: usize) -> Vec<Vec<u32>> {
    let mut places = vec![vec![]; count];
    for (at, &e) in (0..).zip(chosen) {
        places[e as usize].push(at);
    }
    places
}

/// The kernels' name of a routing.
pub(crate) fn kernel(experts: &Experts) -> Routing {
    let routing = experts.routing;
    Routing {
        used: experts.used,
        score: match routing.score {
            Score::Softmax => Scores::Softmax,
            Score::SoftmaxOfChosen => Scores::SoftmaxOfChosen,
            Score::Sigmoid => Scores::Sigmoid,
        },
        groups: routing.groups,
        normalise: routing.normalise,
        scale: routing.scale,
    }
}
