//! How tokens find their experts. The choice is made on the host and is not differentiated; the
//! weights of the chosen are.

use crate::Result;
use crate::autograd::ops::Op;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_formats::architecture::{Routing, Score};
use halfstep_kernels::Real;
use halfstep_kernels::ops::route::{choose, weigh, weigh_backward};
