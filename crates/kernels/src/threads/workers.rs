//! The workers of all pools of one size.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a worker looks out for the next region before it sleeps: longer than what lies between
/// the regions of one token, far shorter than a user's pause.
const LOOKOUT: Duration = Duration::from_micros(50);
/// Turns the caller waits for the last workers before it lets the system wake it.
const TURNS: usize = 2000;

/// In the low half of [`Workers::gate`]: the region is open, and how many workers are inside. The
/// high half counts the regions.
const OPEN: u64 = 1 << 31;
const REGION: u64 = 1 << 32;

thread_local! {
    /// Whether this thread is inside a region, of whatever pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A value that shares its cache line with no other.
#[repr(align(128))]
struct Apart<T>(T);

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// The region at hand.
struct Region {
    task: *const Task<'static>,
    count: usize,
    caller: Thread,
}

pub(super) struct Workers {
    threads: AtomicUsize,
    gate: Apart<AtomicU64>,
    /// The next index to be dealt out.
    next: Apart<AtomicUsize>,
    /// Written by the caller while the gate is closed and nobody inside; read by workers inside.
    region: UnsafeCell<Option<Region>>,
    /// Held by the caller of a region.
    caller: Mutex<()>,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `region` is written and read under the protocol of `gate` (see there); everything else is
// made for sharing.
unsafe impl Send for Workers {}
// SAFETY: as above.
unsafe impl Sync for Workers {}

/// The workers for `threads` threads, started when first used; None if the system refuses even
/// one.
pub(super) fn of(threads: usize) -> Option<Arc<Workers>> {
    static ALL: Mutex<BTreeMap<usize, Arc<Workers>>> = Mutex::new(BTreeMap::new());
    let mut all = lock(&ALL);
    if let Some(workers) = all.get(&threads) {
        return Some(workers.clone());
    }
    let workers = Arc::new(Workers {
        threads: AtomicUsize::new(1),
        gate: Apart(AtomicU64::new(0)),
        next: Apart(AtomicUsize::new(0)),
        region: UnsafeCell::new(None),
        caller: Mutex::new(()),
        sleepers: AtomicUsize::new(0),
        asleep: Mutex::new(()),
        wake: Condvar::new(),
        panic: Mutex::new(None),
    });
    for i in 1..threads {
        let mine = workers.clone();
        if thread::Builder::new().name(format!("halfstep-{i}")).spawn(move || mine.work()).is_err()
        {
            break;
        }
        workers.threads.store(i + 1, Ordering::Relaxed);
    }
    if workers.threads() == 1 {
        return None;
    }
    all.insert(threads, workers.clone());
    Some(workers)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// Runs `task(i)` for i in 0..count. The first panic of a task is resumed in the caller, once
    /// no worker is inside any more.
    pub fn region(&self, count: usize, task: &Task) {
        if INSIDE.get() {
            return (0..count).for_each(task);
        }
        let caller = lock(&self.caller);
        // SAFETY: the lifetime is only forgotten: below, nobody is inside any more before this
        // function ends in any way. Nobody is inside now: the last region was closed and left
        // before its caller let go of the lock.
        unsafe {
            let task = std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task);
            *self.region.get() = Some(Region { task, count, caller: thread::current() });
        }
        self.next.0.store(0, Ordering::Relaxed);
        let closed = self.gate.0.load(Ordering::Relaxed);
        self.gate.0.store(closed.wrapping_add(REGION) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&self.asleep);
            self.wake.notify_all();
        }
        self.take_part(task, count);
        self.gate.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0;
        while self.gate.0.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            turns += 1;
            if turns < TURNS { std::hint::spin_loop() } else { thread::park() }
        }
        let panic = lock(&self.panic).take();
        drop(caller);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Takes indices until there are none; a panic ends the region for all.
    fn take_part(&self, task: &Task, count: usize) {
        INSIDE.set(true);
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.0.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    break;
                }
                task(i);
            }
        }));
        INSIDE.set(false);
        if let Err(panic) = done {
            self.next.0.store(count, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }

    /// The life of a worker.
    fn work(&self) {
        let mut seen = 0;
        loop {
            let gate = self.next_region(seen);
            if gate & OPEN == 0 {
                seen = gate / REGION;
                continue;
            }
            if self
                .gate
                .0
                .compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
            {
                // Closed meanwhile, or another worker came in at the same moment.
                continue;
            }
            seen = gate / REGION;
            // SAFETY: inside, and so until the count goes down: the region stays what it is, and
            // what it points to alive.
            let (task, count, caller) = unsafe {
                let region = (*self.region.get()).as_ref().expect("an open region");
                (&*region.task, region.count, region.caller.clone())
            };
            self.take_part(task, count);
            self.gate.0.fetch_sub(1, Ordering::AcqRel);
            caller.unpark();
        }
    }

    /// Waits for a region later than `seen`: its gate.
    fn next_region(&self, seen: u64) -> u64 {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                let gate = self.gate.0.load(Ordering::Acquire);
                if gate / REGION != seen {
                    return gate;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > LOOKOUT {
                break;
            }
        }
        let mut asleep = lock(&self.asleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // The caller first opens the gate, then looks for sleepers; a worker first counts as one,
        // then looks at the gate. One of them sees the other.
        while self.gate.0.load(Ordering::SeqCst) / REGION == seen {
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.gate.0.load(Ordering::Acquire)
    }
}
