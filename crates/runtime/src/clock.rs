//! Time for the reports of speed; no number of a model depends on it.

/// A moment. On wasm, which has no clock of its own, the host gives one (`set_host_clock`);
/// without it no time ever passes.
#[derive(Clone, Copy)]
pub struct Clock {
    #[cfg(not(target_family = "wasm"))]
    start: std::time::Instant,
    #[cfg(target_family = "wasm")]
    start: f64,
}

impl Clock {
    /// Starts the measurement.
    pub fn start() -> Self {
        #[cfg(not(target_family = "wasm"))]
        return Self { start: std::time::Instant::now() };
        #[cfg(target_family = "wasm")]
        Self { start: host_seconds() }
    }

    /// Seconds since then.
    pub fn seconds(self) -> f64 {
        #[cfg(not(target_family = "wasm"))]
        return self.start.elapsed().as_secs_f64();
        #[cfg(target_family = "wasm")]
        (host_seconds() - self.start)
    }
}

#[cfg(target_family = "wasm")]
static HOST: std::sync::OnceLock<fn() -> f64> = std::sync::OnceLock::new();

/// Sets the clock of the host, in seconds from any moment; the first one set stays.
#[cfg(target_family = "wasm")]
pub fn set_host_clock(seconds: fn() -> f64) {
    HOST.get_or_init(|| seconds);
}

#[cfg(target_family = "wasm")]
fn host_seconds() -> f64 {
    HOST.get().map_or(0.0, |seconds| seconds())
}
